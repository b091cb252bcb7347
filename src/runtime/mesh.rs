//! The channels between shards, and how one wakes another.
//!
//! Three bounded channels join each ordered pair: one carries batches of publishes, one parcels of
//! control messages and sockets, one brings emptied batches back to the shard that allocated them.
//! All are [`MESH_DEPTH`] deep. A sender never waits: what a full channel refuses goes back to
//! the outbox and is tried again; a receiver never stops emptying. So no cycle of waits exists.
//!
//! A shard is woken only if it sleeps, and only once. Before it sleeps it raises its flag, then looks
//! into all its channels once more; a sender puts something into a channel, then looks at the flag.
//! A sequentially consistent fence between the two steps on either side makes sure that at least
//! one of them sees what the other did.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering, fence};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::limits::MESH_DEPTH;
use crate::link::Link;
use crate::route::ShardId;
use crate::shard::{Batch, Control, Outbox, Peer};
use crate::time::Time;

/// A connection on its way to the shard its session lives on. The socket closes if nobody takes it.
#[derive(Debug)]
pub(super) struct HandedOver {
    pub(super) socket: OwnedFd,
    /// The CONNECT and what came behind it.
    pub(super) unread: Vec<u8>,
    pub(super) peer: Peer,
    /// Its TLS and WebSocket, in the middle of whatever they are in the middle of.
    pub(super) link: Option<Box<Link>>,
}

/// What one turn of a shard has for another, publishes aside.
#[derive(Debug, Default)]
pub(super) struct Parcel {
    pub(super) control: Vec<Control>,
    pub(super) sockets: Vec<HandedOver>,
}

/// How a shard is woken.
#[derive(Debug)]
pub(super) struct Door {
    sleeping: AtomicBool,
    /// The descriptor of its ring, where other shards post to; -1 until it has one.
    ring: AtomicI32,
    /// What threads without a ring ring.
    bell: Bell,
}

/// Two ends of a stream: a byte wakes whoever watches the other one.
///
/// No eventfd: on Linux 6.18 an idle shard whose ring watched one answered the first ring of the bell after
/// 24 ms and slept through the second for ever, timers included; with a stream it answers each. The likely
/// cause, not proved: the ring tells of its completions by an eventfd too, and the kernel puts off the
/// one within the other, but only once.
#[derive(Debug)]
pub(super) struct Bell {
    ringer: UnixStream,
    watched: UnixStream,
}

impl Bell {
    /// A bell that nobody has rung.
    pub(super) fn new() -> io::Result<Self> {
        let (ringer, watched) = UnixStream::pair()?;
        ringer.set_nonblocking(true)?;
        watched.set_nonblocking(true)?;
        Ok(Self { ringer, watched })
    }
}

impl Door {
    /// Wakes the shard from a thread that is no shard.
    pub(super) fn ring_bell(&self) {
        // Fails only if the stream is full, and then the shard is being woken already.
        let _ = (&self.bell.ringer).write(&[1]);
    }

    /// What the shard watches.
    pub(super) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.watched.as_fd()
    }

    /// Takes in that the bell was rung. Must come before what it was rung for is looked at.
    pub(super) fn heard(&self) {
        let mut bytes = [0; 64];
        while matches!((&self.bell.watched).read(&mut bytes), Ok(read) if read == bytes.len()) {}
    }

    /// Where other shards post their wakes.
    pub(super) fn set_ring(&self, ring: RawFd) {
        self.ring.store(ring, Ordering::Release);
    }
}

/// A batch, and when it was pushed.
#[derive(Debug)]
struct Stamped {
    batch: Box<Batch>,
    pushed_at: Time,
}

/// One shard's ends of the channels to and from another.
#[derive(Debug)]
struct Lanes {
    other: ShardId,
    live_out: Sender<Stamped>,
    live_in: Receiver<Stamped>,
    parcels_out: Sender<Parcel>,
    parcels_in: Receiver<Parcel>,
    /// Emptied batches of the other shard go back to it.
    empties_out: Sender<Box<Batch>>,
    /// Emptied batches of ours come back.
    empties_in: Receiver<Box<Batch>>,
    /// Sockets that wait for a place in the channel.
    sockets: Vec<HandedOver>,
}

/// One shard's part of the mesh.
#[derive(Debug)]
pub(super) struct Mesh {
    me: ShardId,
    lanes: Vec<Lanes>,
    doors: Arc<[Door]>,
}

/// The mesh of `bells.len()` shards, one part for each, and their doors.
pub(super) fn build(bells: Vec<Bell>) -> (Vec<Mesh>, Arc<[Door]>) {
    let shards = bells.len();
    let doors: Arc<[Door]> = bells
        .into_iter()
        .map(|bell| Door {
            sleeping: AtomicBool::new(false),
            ring: AtomicI32::new(-1),
            bell,
        })
        .collect();
    let mut meshes: Vec<Mesh> = (0..shards)
        .map(|me| Mesh {
            me: ShardId::new(me),
            lanes: Vec::new(),
            doors: Arc::clone(&doors),
        })
        .collect();
    for low in 0..shards {
        for high in low + 1..shards {
            let (first, second) = pair(ShardId::new(low), ShardId::new(high));
            meshes[low].lanes.push(first);
            meshes[high].lanes.push(second);
        }
    }
    (meshes, doors)
}

/// Both ends of the channels between two shards.
fn pair(low: ShardId, high: ShardId) -> (Lanes, Lanes) {
    let (live_up, live_from_low) = bounded(MESH_DEPTH);
    let (live_down, live_from_high) = bounded(MESH_DEPTH);
    let (parcels_up, parcels_from_low) = bounded(MESH_DEPTH);
    let (parcels_down, parcels_from_high) = bounded(MESH_DEPTH);
    let (empties_up, empties_from_low) = bounded(MESH_DEPTH);
    let (empties_down, empties_from_high) = bounded(MESH_DEPTH);
    let first = Lanes {
        other: high,
        live_out: live_up,
        live_in: live_from_high,
        parcels_out: parcels_up,
        parcels_in: parcels_from_high,
        empties_out: empties_up,
        empties_in: empties_from_high,
        sockets: Vec::new(),
    };
    let second = Lanes {
        other: low,
        live_out: live_down,
        live_in: live_from_low,
        parcels_out: parcels_down,
        parcels_in: parcels_from_low,
        empties_out: empties_down,
        empties_in: empties_from_low,
        sockets: Vec::new(),
    };
    (first, second)
}

/// Rings the bell of a shard, from any thread.
#[derive(Clone, Debug)]
pub(super) struct Ringer {
    doors: Arc<[Door]>,
    shard: usize,
}

impl Ringer {
    pub(super) fn ring(&self) {
        self.doors[self.shard].ring_bell();
    }
}

impl Mesh {
    /// What rings this shard's own bell.
    pub(super) fn ringer(&self) -> Ringer {
        Ringer {
            doors: Arc::clone(&self.doors),
            shard: self.me.index(),
        }
    }

    /// This shard's own door.
    pub(super) fn door(&self) -> &Door {
        &self.doors[self.me.index()]
    }

    /// Takes all parcels there are. Comes first in a turn: whatever publish was sent before one of
    /// them is in a live channel by now.
    pub(super) fn take_parcels(&self, into: &mut Vec<(ShardId, Parcel)>) {
        for lane in &self.lanes {
            // Bounded, since a sender that is faster than we are must not hold the turn.
            into.extend(
                lane.parcels_in
                    .try_iter()
                    .take(MESH_DEPTH)
                    .map(|parcel| (lane.other, parcel)),
            );
        }
    }

    /// Hands every batch that is there to `work`, and each back to the shard it came from. Everything
    /// that was in the channels when the parcels were taken is among them: a channel holds no more
    /// than what is taken from it here.
    pub(super) fn take_batches(&self, mut work: impl FnMut(ShardId, &Batch, Time)) {
        for lane in &self.lanes {
            for stamped in lane.live_in.try_iter().take(MESH_DEPTH) {
                let Stamped {
                    mut batch,
                    pushed_at,
                } = stamped;
                work(lane.other, &batch, pushed_at);
                batch.clear();
                // If the other side has enough of them, this one is freed.
                let _ = lane.empties_out.try_send(batch);
            }
        }
    }

    /// Keeps a socket that belongs on the shard `to` until the next [`Mesh::send`].
    pub(super) fn hand_over(&mut self, to: ShardId, socket: HandedOver) {
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.other == to) {
            lane.sockets.push(socket);
        }
    }

    /// Sends what the outbox has for other shards, and calls `wake` with the ring of each of them
    /// that sleeps. It is `now`. Returns whether something had to stay behind.
    pub(super) fn send(
        &mut self,
        outbox: &mut Outbox,
        now: Time,
        mut wake: impl FnMut(RawFd),
    ) -> bool {
        let mut pushed: u64 = 0;
        for lane in &self.lanes {
            for empty in lane.empties_in.try_iter().take(MESH_DEPTH) {
                outbox.recycle(empty);
            }
            while let Some(batch) = outbox.next_live(lane.other) {
                let stamped = Stamped {
                    batch,
                    pushed_at: now,
                };
                match lane.live_out.try_send(stamped) {
                    Ok(()) => pushed |= 1 << lane.other.index(),
                    Err(TrySendError::Full(stamped)) => {
                        outbox.give_back_live(lane.other, stamped.batch);
                        break;
                    }
                    // The other shard has stopped already: the process is stopping.
                    Err(TrySendError::Disconnected(_)) => {}
                }
            }
        }
        // Control must not overtake a publish, not even by way of a third shard.
        let control_may_leave = outbox.live_is_empty();
        let mut behind = !control_may_leave;
        for lane in &mut self.lanes {
            let control = if control_may_leave {
                outbox.take_control(lane.other)
            } else {
                Vec::new()
            };
            if control.is_empty() && lane.sockets.is_empty() {
                continue;
            }
            let parcel = Parcel {
                control,
                sockets: std::mem::take(&mut lane.sockets),
            };
            match lane.parcels_out.try_send(parcel) {
                Ok(()) => pushed |= 1 << lane.other.index(),
                Err(TrySendError::Full(parcel)) => {
                    outbox.give_back_control(lane.other, parcel.control);
                    lane.sockets = parcel.sockets;
                    behind = true;
                }
                Err(TrySendError::Disconnected(_)) => {}
            }
        }
        if pushed != 0 {
            fence(Ordering::SeqCst);
            for (index, door) in self.doors.iter().enumerate() {
                // The swap leaves one wake to one sender.
                if pushed >> index & 1 == 1
                    && door.sleeping.load(Ordering::Relaxed)
                    && door.sleeping.swap(false, Ordering::AcqRel)
                {
                    wake(door.ring.load(Ordering::Acquire));
                }
            }
        }
        behind
    }

    /// Batches of other shards that wait to be taken.
    pub(super) fn batches_waiting(&self) -> usize {
        self.lanes.iter().map(|lane| lane.live_in.len()).sum()
    }

    /// Announces that this shard is about to wait. `false` if something has arrived: do not wait.
    pub(super) fn fall_asleep(&self) -> bool {
        if self.lanes.is_empty() {
            return true;
        }
        let sleeping = &self.door().sleeping;
        sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let empty = self
            .lanes
            .iter()
            .all(|lane| lane.live_in.is_empty() && lane.parcels_in.is_empty());
        if !empty {
            sleeping.store(false, Ordering::Relaxed);
        }
        empty
    }

    /// The wait is over.
    pub(super) fn wake_up(&self) {
        if !self.lanes.is_empty() {
            self.door().sleeping.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::sys;

    fn mesh(shards: usize) -> Vec<Mesh> {
        let bells = (0..shards).map(|_| Bell::new().unwrap()).collect();
        let (meshes, doors) = build(bells);
        for (index, door) in doors.iter().enumerate() {
            door.set_ring(100 + i32::try_from(index).unwrap());
        }
        meshes
    }

    fn socket() -> HandedOver {
        HandedOver {
            socket: sys::eventfd().unwrap(),
            unread: b"CONNECT".to_vec(),
            peer: Peer::new(0, "127.0.0.1:1".parse().unwrap()),
            link: None,
        }
    }

    #[test]
    fn a_socket_arrives_and_wakes_a_sleeper_once() {
        let mut meshes = mesh(3);
        assert!(meshes[2].fall_asleep());
        let mut outbox = Outbox::new(3);
        let mut woken = Vec::new();
        for _ in 0..2 {
            meshes[0].hand_over(ShardId::new(2), socket());
            assert!(!meshes[0].send(&mut outbox, Time::ZERO, |ring| woken.push(ring)));
        }
        assert_eq!(woken, [102], "shard 2 sleeps, and one wake is enough");
        let mut parcels = Vec::new();
        meshes[2].take_parcels(&mut parcels);
        assert_eq!(parcels.len(), 2);
        assert!(parcels.iter().all(|(from, _)| *from == ShardId::new(0)));
        assert_eq!(parcels[0].1.sockets[0].unread, b"CONNECT");
    }

    #[test]
    fn nobody_sleeps_over_something_that_arrived() {
        let mut meshes = mesh(2);
        meshes[1].hand_over(ShardId::new(0), socket());
        meshes[1].send(&mut Outbox::new(2), Time::ZERO, |_| {
            panic!("shard 0 does not sleep")
        });
        assert!(!meshes[0].fall_asleep());
        meshes[0].take_parcels(&mut Vec::new());
        assert!(meshes[0].fall_asleep());
    }

    #[test]
    fn what_a_full_channel_refuses_is_kept_in_order() {
        let mut meshes = mesh(2);
        let mut outbox = Outbox::new(2);
        for turn in 0..MESH_DEPTH + 2 {
            let mut socket = socket();
            socket.unread = turn.to_string().into_bytes();
            meshes[0].hand_over(ShardId::new(1), socket);
            assert_eq!(
                meshes[0].send(&mut outbox, Time::ZERO, |_| ()),
                turn >= MESH_DEPTH
            );
        }
        let mut parcels = Vec::new();
        meshes[1].take_parcels(&mut parcels);
        assert!(!meshes[0].send(&mut outbox, Time::ZERO, |_| ()));
        meshes[1].take_parcels(&mut parcels);
        let unread: Vec<_> = parcels
            .iter()
            .flat_map(|(_, parcel)| &parcel.sockets)
            .map(|socket| String::from_utf8(socket.unread.clone()).unwrap())
            .collect();
        let expected: Vec<_> = (0..MESH_DEPTH + 2).map(|turn| turn.to_string()).collect();
        assert_eq!(unread, expected);
    }

    #[test]
    fn no_wake_is_lost_between_two_threads() {
        const ROUNDS: usize = 20_000;
        let mut meshes = mesh(2);
        let receiver = meshes.pop().unwrap();
        let mut sender = meshes.pop().unwrap();
        let (wake, woken) = bounded::<()>(ROUNDS);
        let thread = std::thread::Builder::new().spawn(move || {
            let mut taken = 0;
            while taken < ROUNDS {
                let mut parcels = Vec::new();
                receiver.take_parcels(&mut parcels);
                taken += parcels
                    .iter()
                    .map(|(_, parcel)| parcel.sockets.len())
                    .sum::<usize>();
                if taken < ROUNDS && receiver.fall_asleep() {
                    woken
                        .recv_timeout(std::time::Duration::from_secs(10))
                        .expect("a wake was lost");
                }
                receiver.wake_up();
            }
        });
        let mut outbox = Outbox::new(2);
        for _ in 0..ROUNDS {
            sender.hand_over(ShardId::new(1), socket());
            while sender.send(&mut outbox, Time::ZERO, |_| wake.send(()).unwrap()) {
                std::thread::yield_now();
            }
        }
        thread.unwrap().join().unwrap();
    }
}
