//! Every bound of the broker, in one place: its unit, its reason, and the relations between them
//! that the compiler checks. A queue, pool or buffer without a line here is a defect.
//!
//! Bounds that an operator may want to change are keys of [`crate::config`]; what stands here for
//! them is the default. The rest are facts of the protocol or of the design.

/// Shards in one process. Interest of the other shards is one bit per shard in a `u64`
/// ([`crate::route::ShardSet`]), kept per topic filter, so the width is paid a million times over.
pub const MAX_SHARDS: usize = 64;

/// The largest value a Variable Byte Integer carries, and so the largest Remaining Length
/// (bytes). Section 1.5.5 of version 5, 2.2.3 of 3.1.1.
pub const MAX_REMAINING_LENGTH: u32 = 268_435_455;

/// Bytes of the largest fixed header: one byte of type and flags, four of Remaining Length.
pub const MAX_FIXED_HEADER: u32 = 5;

/// Bytes of the largest packet the protocol can express.
pub const MAX_PACKET_SIZE: u32 = MAX_REMAINING_LENGTH + MAX_FIXED_HEADER;

/// Default of `maximum_packet_size` (bytes, fixed header included). What a vehicle sends at most
/// in practice (a diagnostic dump) fits; what a memory attack wants does not.
pub const DEFAULT_MAXIMUM_PACKET_SIZE: u32 = 1024 * 1024;

/// Bytes of a CONNECT before a client is known: client id, will and credentials. Before
/// authentication nobody may make the broker hold `maximum_packet_size` bytes.
pub const MAX_CONNECT_PACKET_SIZE: u32 = 256 * 1024;

/// Bytes of the longest UTF-8 string, and so of the longest topic (length prefix of two bytes).
pub const MAX_STRING: usize = 65_535;

/// Levels of a topic name or filter. Matching is iterative, so depth costs time, not stack; a fleet
/// uses ten. [MQTT-4.7.3-3] leaves the number to us.
pub const MAX_TOPIC_LEVELS: usize = 128;

/// Bytes of a mount point, names put in. It is part of every topic, so it comes off [`MAX_STRING`].
pub const MAX_MOUNT_POINT: usize = 1024;

/// Default of `receive_maximum`: QoS 1 and 2 messages a client may have unacknowledged towards us.
pub const DEFAULT_RECEIVE_MAXIMUM: u16 = 1024;

/// Default of `max_inflight`: QoS 1 and 2 messages we have unacknowledged towards one client, on
/// top of the client's own Receive Maximum.
pub const DEFAULT_MAX_INFLIGHT: u16 = 1024;

/// Default of `topic_alias_maximum`: aliases a client may set. Each holds a topic of at most
/// [`MAX_STRING`] bytes in memory, so the bound is small.
pub const DEFAULT_TOPIC_ALIAS_MAXIMUM: u16 = 32;

/// Aliases we set towards one client, whatever more it offers.
pub const MAX_OUTGOING_ALIASES: u16 = 64;

/// Default of `max_queued_messages`: QoS 1 and 2 messages that wait for one client.
pub const DEFAULT_MAX_QUEUED_MESSAGES: u32 = 10_000;

/// Default of `max_queued_bytes`: bytes of the messages that wait for one client.
pub const DEFAULT_MAX_QUEUED_BYTES: u64 = 64 * 1024 * 1024;

/// Default of `max_queue_memory`: bytes of memory for the messages that wait for all clients.
pub const DEFAULT_MAX_QUEUE_MEMORY: u64 = 256 * 1024 * 1024;

/// Default of `max_output_bytes`: bytes that wait in memory for one client's socket. Above it a
/// QoS 0 message for that client is dropped and counted; QoS 1 and 2 wait in its queue.
pub const DEFAULT_MAX_OUTPUT_BYTES: usize = 1024 * 1024;

/// Subscriptions of one session.
pub const DEFAULT_MAX_SUBSCRIPTIONS: u32 = 1_000;

/// Bytes of MQTT frames that one batch to another shard gathers before it is pushed.
pub const BATCH_BYTES: usize = 64 * 1024;

/// Frames of one batch: the point from which a channel hop costs under 10 ns a message
/// (crossbeam, recycled batches: 6 to 9 ns at 256).
pub const BATCH_FRAMES: usize = 256;

/// Bytes that a run of publishes to one topic is taken together for ([`crate::wire::Run`]): fifty
/// messages of telemetry, from where on more of them save nothing, and few enough that a thousand
/// receivers of them stay in the cache.
pub const RUN_BYTES: usize = 4 * 1024;

/// Bytes that a turn leaves in output buffers before it hands them to the kernel, instead of at its
/// end. What one read brings may go to a thousand clients; more of it than fits the second-level
/// cache costs page faults and latency.
pub const TURN_OUTPUT_BYTES: usize = 1024 * 1024;

/// Batches that wait between one ordered pair of shards and lane.
pub const MESH_DEPTH: usize = 64;

/// Bytes of live batches that a shard may hold back while a channel is full, before it stops
/// reading its clients' sockets.
pub const MESH_BACKLOG_BYTES: usize = 4 * 1024 * 1024;

/// Retained messages in one chunk that answers a subscription.
pub const RETAINED_CHUNK: usize = 256;

/// Bytes in one chunk of retained messages, counted before the message that crosses it.
pub const RETAINED_CHUNK_BYTES: usize = 256 * 1024;

/// Retained topics looked at for one chunk, matching or not, so that `+/x` over a million topics
/// does not hold the shard: about 0.2 ms.
pub const RETAINED_SCAN: usize = 4096;

/// History streams: a set of them is one word, next to the matches of a topic.
pub const HISTORY_STREAMS: usize = 64;

/// Bytes of a block of history from which on it is written: some 250 messages of telemetry, from where on
/// larger ones cost no less, and what is read to find one message.
pub const HISTORY_BLOCK_BYTES: usize = 64 * 1024;

/// Blocks of a stream that are being written by a shard at a time.
pub const HISTORY_FLYING: usize = 8;

/// Bytes of a stream that may wait in a shard for the disk; what is older is dropped and counted. A quarter
/// of a second of what a shard appends at most, or a minute of a busy fleet.
pub const HISTORY_BACKLOG_BYTES: usize = 16 * 1024 * 1024;

/// Bytes from which on a bucket gets no further block: an eighth of what is kept, shared out among the
/// shards, within these two. So what cannot be removed yet is little of what is kept.
pub const HISTORY_BUCKET_BYTES: (u64, u64) = (64 * 1024, 64 * 1024 * 1024);

/// Microseconds after which a write of history that failed is tried again.
pub const HISTORY_RETRY_US: u64 = 1_000_000;

/// Bytes of history that are looked through for one page, wanted or not: about 2 ms.
pub const HISTORY_SCAN_BYTES: u64 = 4 * 1024 * 1024;

/// Bytes of the pages that one replay holds, all lanes together, besides the last block of each.
pub const HISTORY_PAGE_BYTES: usize = 256 * 1024;

/// Replays of one session.
pub const HISTORY_REPLAYS_PER_SESSION: usize = 16;

/// Replays of the sessions of one shard: less than a megabyte each.
pub const HISTORY_REPLAYS: usize = 1_024;

/// Pages of history that a shard works on in one turn, of its own replays and for others: some 0.1 ms each.
pub const HISTORY_PAGES_PER_TURN: usize = 8;

/// Replayed messages that may wait in the queue of a session.
pub const HISTORY_ROOM: usize = 128;

/// Topics whose matches a shard remembers; about 200 bytes each where one session listens.
pub const ROUTE_CACHE_TOPICS: usize = 65_536;

/// Bytes of the matches that a shard remembers. A hundred thousand listeners of one topic are
/// 1.6 MB.
pub const ROUTE_CACHE_BYTES: usize = 16 * 1024 * 1024;

/// Members of a shared group among which a hash decides by the highest score; of a larger group as
/// many are looked at. About 2 ns each.
pub const GROUP_RENDEZVOUS: usize = 128;

/// Log events that one turn of a shard may hand out; what is more is counted.
pub const MAX_EVENTS_PER_TURN: usize = 256;

/// Events that a shard gathers in one wait at most: from here on one more saves under 2 % of a turn.
pub const MAX_GATHERED_EVENTS: u32 = 64;

/// Milliseconds a connection that the broker closes has to take its last bytes, and then as long
/// again to close its side. Closing at once would let the kernel answer bytes that are still on
/// their way with a reset, which destroys what the client has not read yet, the reason for the close.
pub const CLOSE_GRACE_MS: u64 = 2_000;

/// Milliseconds that accepting pauses after the operating system refused a connection for want of
/// descriptors or memory.
pub const ACCEPT_PAUSE_MS: u64 = 100;

/// Connections that are told to go away in one such pause.
pub const ACCEPT_REFUSALS: usize = 256;

/// Microseconds of a turn that go to TLS handshakes, each of which costs a signature and an agreement
/// on keys, some 150 of them; the clients that are there wait no longer for their messages.
pub const HANDSHAKE_BUDGET_US: u64 = 400;

/// Log lines of one kind that a shard writes in [`LOG_PERIOD_MS`]; what is more is counted and told
/// in one line.
pub const LOG_LINES: u32 = 100;

/// Milliseconds after which a shard may write [`LOG_LINES`] more of a kind.
pub const LOG_PERIOD_MS: u64 = 1_000;

/// Questions about its state that wait for one shard: as many as there can be who ask.
pub const ADMIN_QUESTIONS: usize = HTTP_CONNECTIONS;

/// Milliseconds after which a shard that does not answer counts as down. A turn takes microseconds.
pub const SHARD_ANSWER_MS: u64 = 1_000;

/// HTTP connections at a time; the next ones wait in the kernel's backlog.
pub const HTTP_CONNECTIONS: usize = 16;

/// Bytes of the head of an HTTP request.
pub const HTTP_HEAD_BYTES: usize = 16 * 1024;

/// Milliseconds that an HTTP client has for the head of its request.
pub const HTTP_HEAD_MS: u64 = 3_000;

/// Milliseconds that an HTTP connection lasts at most, its answer included.
pub const HTTP_CONNECTION_MS: u64 = 10_000;

/// Answers about a client and a topic that a shard remembers in each of two tables, so that a publish
/// need not walk the rules again; some 100 bytes each.
pub const ACL_CACHE_ENTRIES: usize = 32_768;

/// Bytes of the longest topic that such an answer is remembered for.
pub const ACL_CACHE_TOPIC_BYTES: usize = 512;

/// Nodes of rules that are looked at to judge one topic filter; a filter that needs more is judged
/// message by message instead. About 10 ns each.
pub const MAX_ACL_STEPS: usize = 1_024;

/// Default of `max_user_properties`: of one message, all kept with it.
pub const DEFAULT_MAX_USER_PROPERTIES: usize = 128;

/// Default of `max_filters_per_subscribe`: as many as a session may have.
pub const DEFAULT_MAX_FILTERS: usize = DEFAULT_MAX_SUBSCRIPTIONS as usize;

/// Default of `max_retained_messages`: some gigabytes where each is small.
pub const DEFAULT_MAX_RETAINED_MESSAGES: u64 = 10_000_000;

/// Default of `max_retained_bytes`.
pub const DEFAULT_MAX_RETAINED_BYTES: u64 = 8 * 1024 * 1024 * 1024;

/// Client ids, and addresses, whose attempts a shard counts at a time; some 100 bytes each.
pub const MAX_STRIKES: usize = 100_000;

/// Milliseconds that a client which publishes is not read from while memory is short.
pub const SHED_PAUSE_MS: u64 = 1_000;

/// Rules that one client may bring along in its token; a few milliseconds to compile.
pub const MAX_GRANT_RULES: usize = 1_000;

/// Kibibytes that checking one Argon2 password may take: a file that says more is refused.
pub const MAX_ARGON2_MEMORY_KIB: u32 = 1024 * 1024;

/// Passes over that memory: some seconds.
pub const MAX_ARGON2_PASSES: u32 = 64;

/// Iterations of PBKDF2 in a password file: some seconds.
pub const MAX_ITERATIONS: u32 = 10_000_000;

/// Questions that wait for the threads that hash passwords; the client of one more is told that the
/// server is busy. 10,000 of them at 200 bytes are 2 MB, and more than a minute of work for a core.
pub const AUTH_QUEUE: usize = 10_000;

/// Threads that hash passwords, if there are CPUs for them: each takes a CPU's spare time and, with
/// Argon2, some 20 MiB.
pub const MAX_AUTH_THREADS: usize = 4;

/// Bytes of an answer of an HTTP authenticator: a thousand rules fit.
pub const AUTH_HTTP_BYTES: usize = 128 * 1024;

/// Answers of an HTTP authenticator that are remembered; some 100 bytes each without rules.
pub const AUTH_HTTP_CACHE: usize = 10_000;

/// Answers of slow authenticators that a shard takes in one turn: about 10 microseconds each.
pub const AUTH_ANSWERS: usize = 64;

const _: () = {
    assert!(MAX_SHARDS <= u64::BITS as usize);
    assert!(DEFAULT_MAXIMUM_PACKET_SIZE <= MAX_PACKET_SIZE);
    assert!(MAX_CONNECT_PACKET_SIZE <= DEFAULT_MAXIMUM_PACKET_SIZE);
    assert!(MAX_CONNECT_PACKET_SIZE as usize >= 3 * MAX_STRING);
    assert!(DEFAULT_RECEIVE_MAXIMUM > 0 && DEFAULT_MAX_INFLIGHT > 0);
    assert!(BATCH_BYTES * MESH_DEPTH <= MESH_BACKLOG_BYTES);
    assert!(RETAINED_CHUNK <= RETAINED_SCAN);
    assert!(HISTORY_STREAMS <= u64::BITS as usize);
    assert!(HISTORY_FLYING * HISTORY_BLOCK_BYTES < HISTORY_BACKLOG_BYTES);
    assert!(HISTORY_BLOCK_BYTES as u64 <= HISTORY_BUCKET_BYTES.0);
    assert!(HISTORY_PAGE_BYTES as u64 <= HISTORY_SCAN_BYTES);
    assert!(HTTP_HEAD_MS + SHARD_ANSWER_MS < HTTP_CONNECTION_MS);
    assert!(HTTP_HEAD_BYTES >= 8 * 1024); // the least that hyper takes
};
