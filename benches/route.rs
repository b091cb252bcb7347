//! What routing costs: matching among a million subscriptions, changing them, retained messages,
//! and the memory of each, counted by the allocator.
//!
//! `cargo bench --no-default-features --bench route`; with `--test` every part runs once, small.

#![expect(clippy::print_stdout, reason = "a benchmark reports")]
#![expect(clippy::unwrap_used, reason = "a benchmark may stop")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;

use std::sync::atomic::{AtomicUsize, Ordering};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

use shardmq::message::{Message, MessageView};
use shardmq::route::{
    Choice, Member, Receiver, Retained, Routes, Scan, ScanBudget, SessionKey, ShardId,
};
use shardmq::time::Time;
use shardmq::topic::{Filter, Name};
use shardmq::wire::QoS;

/// Bytes that are allocated now, as they were asked for.
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[expect(
    unsafe_code,
    reason = "a global allocator can be written in no other way"
)]
// SAFETY: every call is passed on unchanged to the system's allocator; counting touches nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's requirements.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above; the block came from `alloc` with this layout.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that `make` leaves allocated, and what it made.
fn allocated<T>(make: impl FnOnce() -> T) -> (T, usize) {
    let before = ALLOCATED.load(Ordering::Relaxed);
    let made = make();
    (made, ALLOCATED.load(Ordering::Relaxed) - before)
}

/// How many subscriptions, or few where nothing is measured.
fn many() -> u32 {
    if std::env::args().any(|argument| argument == "--test") {
        10_000
    } else {
        1_000_000
    }
}

fn receiver(index: u32) -> Receiver {
    Receiver {
        session: SessionKey {
            index,
            generation: 0,
        },
        identifier: 0,
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
    }
}

fn subscribe(routes: &mut Routes, filter: &str, index: u32) {
    routes.subscribe(Filter::parse(filter).unwrap(), receiver(index));
}

const REGIONS: [&str; 4] = ["eu", "us", "cn", "za"];
const SIGNALS: [&str; 9] = [
    "door", "lock", "horn", "light", "climate", "charge", "update", "config", "locate",
];

/// The topic of a command to one vehicle: six levels.
fn command(vehicle: u32, signal: u32) -> String {
    let region = REGIONS[vehicle as usize % REGIONS.len()];
    let signal = SIGNALS[signal as usize % SIGNALS.len()];
    format!("fleet/{region}/vehicle/{vehicle:06}/cmd/{signal}")
}

/// `many` subscriptions of vehicles, nine exact and one with a wildcard each, and a few of back ends
/// that see everything of one kind.
fn fleet(many: u32) -> Routes {
    let mut routes = Routes::new(0x5eed);
    for vehicle in 0..many / 10 {
        for signal in 0..9 {
            subscribe(&mut routes, &command(vehicle, signal), vehicle);
        }
        let wildcard = match vehicle % 4 {
            0 => format!("fleet/+/vehicle/{vehicle:06}/cmd/+"),
            1 => format!("fleet/us/vehicle/{vehicle:06}/#"),
            2 => format!("fleet/cn/vehicle/{vehicle:06}/cmd/+"),
            _ => format!("fleet/+/vehicle/{vehicle:06}/config/#"),
        };
        subscribe(&mut routes, &wildcard, vehicle);
    }
    subscribe(&mut routes, "fleet/+/vehicle/+/cmd/locate", many);
    subscribe(&mut routes, "fleet/za/#", many + 1);
    subscribe(&mut routes, "+/+/vehicle/+/telemetry/#", many + 2);
    routes
}

/// Topics of vehicles drawn at random, so that memory is as cold as in life.
fn drawn(many: u32, count: u64) -> Vec<String> {
    (0..count)
        .map(|n| {
            let bits = (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
            let vehicle = u32::try_from((bits * u64::from(many / 10)) >> 32).unwrap();
            command(vehicle, u32::try_from(n % 9).unwrap())
        })
        .collect()
}

/// Bytes per subscription of fleets that have filters of that shape.
fn memory() {
    let many = many();
    let shapes: [(&str, &dyn Fn(u32) -> String); 6] = [
        ("vehicle/000123/cmd/+", &|n| format!("vehicle/{n:06}/cmd/+")),
        ("vehicle/000123/#", &|n| format!("vehicle/{n:06}/#")),
        ("fleet/vehicle/4711/state", &|n| {
            format!("fleet/vehicle/{n}/state")
        }),
        ("vehicle/+/000123/state", &|n| {
            format!("vehicle/+/{n:06}/state")
        }),
        ("vehicle/000123/+/set", &|n| format!("vehicle/{n:06}/+/set")),
        ("fleet/eu-central/vehicle/WVWZZZ1JZXW000123/cmd/+", &|n| {
            format!("fleet/eu-central/vehicle/WVWZZZ1JZXW{n:06}/cmd/+")
        }),
    ];
    for (shape, filter) in shapes {
        for count in [many / 10 * 9, many] {
            let (routes, bytes) = allocated(|| {
                let mut routes = Routes::new(1);
                for index in 0..count {
                    subscribe(&mut routes, &filter(index), index);
                }
                routes
            });
            println!(
                "{shape}: {} bytes per subscription of {count}",
                bytes / count as usize
            );
            drop(routes);
        }
    }
    let (routes, bytes) = allocated(|| {
        let mut routes = Routes::new(1);
        for index in 0..many {
            subscribe(&mut routes, "vehicle/all", index);
        }
        routes
    });
    println!(
        "vehicle/all: {} bytes per subscription of {many}",
        bytes / many as usize
    );
    drop(routes);
    let (retained, bytes) = allocated(|| filled(many));
    println!(
        "retained: {} bytes per topic of {many}",
        bytes / retained.len()
    );
}

/// The time of one `operation`, from the best of many short batches: on a machine that others use
/// too, the only figure that says something of this code.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn best<T>(what: &str, mut operation: impl FnMut() -> T) {
    const BATCH: u32 = 256;
    let rounds = if many() < 1_000_000 { 1 } else { 8_000 };
    let mut times: Vec<_> = (0..rounds)
        .map(|_| {
            let start = std::time::Instant::now();
            for _ in 0..BATCH {
                black_box(operation());
            }
            start.elapsed().as_secs_f64() * 1e9 / f64::from(BATCH)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let at = |share: usize| times[times.len() * share / 100];
    println!(
        "{what}: {:.1} ns at best, {:.1} in a tenth, {:.1} in half",
        at(0),
        at(10),
        at(50)
    );
}

fn matching(criterion: &mut Criterion) {
    let many = many();
    let mut routes = fleet(many);
    let topics = drawn(many, 1 << 18);
    let names: Vec<_> = topics
        .iter()
        .map(|topic| Name::parse(topic).unwrap())
        .collect();
    let mut group = criterion.benchmark_group("match");
    let mut next = names.iter().cycle();
    best("walked", || {
        routes.matches_uncached(black_box(*next.next().unwrap()))
    });
    group.bench_function("walked", |bench| {
        bench.iter(|| routes.matches_uncached(black_box(*next.next().unwrap())));
    });
    let mut next = names
        .iter()
        .cycle()
        .map(|name| name.as_str().replace("cmd", "telemetry"));
    let telemetry: Vec<_> = next.by_ref().take(1 << 16).collect();
    let mut next = telemetry
        .iter()
        .map(|topic| Name::parse(topic).unwrap())
        .cycle();
    best("walked, wildcards only", || {
        routes.matches_uncached(black_box(next.next().unwrap()))
    });
    group.bench_function("walked, wildcards only", |bench| {
        bench.iter(|| routes.matches_uncached(black_box(next.next().unwrap())));
    });
    let mut next = names[..1024].iter().cycle();
    best("cached, 1024 topics", || {
        routes.matches(black_box(*next.next().unwrap()))
    });
    group.bench_function("cached, 1024 topics", |bench| {
        bench.iter(|| routes.matches(black_box(*next.next().unwrap())));
    });
    let mut next = names[..1 << 15].iter().cycle();
    best("cached, 32768 topics", || {
        routes.matches(black_box(*next.next().unwrap()))
    });
    group.bench_function("cached, 32768 topics", |bench| {
        bench.iter(|| routes.matches(black_box(*next.next().unwrap())));
    });
    let mut next = names.iter().cycle();
    best("missed, walked and cached", || {
        routes.matches(black_box(*next.next().unwrap()))
    });
    group.bench_function("missed, walked and cached", |bench| {
        bench.iter(|| routes.matches(black_box(*next.next().unwrap())));
    });
    group.finish();
}

fn changing(criterion: &mut Criterion) {
    let many = many();
    let mut routes = fleet(many);
    let mut group = criterion.benchmark_group("change");
    for (what, text) in [
        (
            "exact",
            &(|n| format!("fleet/eu/vehicle/{n:08}/state")) as &dyn Fn(u32) -> String,
        ),
        ("wildcard", &|n| format!("fleet/+/vehicle/{n:08}/+/state")),
    ] {
        let texts: Vec<_> = (0..1 << 16).map(text).collect();
        let filters: Vec<_> = texts
            .iter()
            .map(|text| Filter::parse(text).unwrap())
            .collect();
        let mut next = filters.iter().cycle();
        let mut change = || {
            let filter = black_box(*next.next().unwrap());
            routes.subscribe(filter, receiver(1));
            routes.unsubscribe(filter, receiver(1).session)
        };
        best(&format!("subscribe and unsubscribe, {what}"), &mut change);
        group.bench_function(format!("subscribe and unsubscribe, {what}"), |bench| {
            bench.iter(&mut change);
        });
    }
    let crowd = Filter::parse("vehicle/all").unwrap();
    for index in 0..many / 10 {
        routes.subscribe(crowd, receiver(index));
    }
    let mut index = 0u32;
    group.bench_function("unsubscribe and subscribe, one of 100000", |bench| {
        bench.iter(|| {
            index = (index + 48_271) % (many / 10);
            routes.unsubscribe(crowd, receiver(index).session);
            routes.subscribe(crowd, receiver(index))
        });
    });
    let jobs = Filter::parse("jobs/#").unwrap();
    for index in 0..100 {
        let member = Member {
            shard: ShardId::new(1),
            receiver: receiver(index),
            available: true,
        };
        routes.join("workers", jobs, member);
    }
    let workers = routes.group("workers", jobs).unwrap();
    group.bench_function("pick in turn, 100 members", |bench| {
        bench.iter(|| routes.pick(workers, Choice::default(), None));
    });
    group.finish();
}

fn message(topic: &str) -> Message {
    MessageView {
        topic: Name::parse(topic).unwrap(),
        properties: &[],
        payload: &[7; 16],
        qos: QoS::AtLeastOnce,
        retain: true,
        expires_at: Time::NEVER,
    }
    .to_message()
}

fn filled(many: u32) -> Retained {
    let mut retained = Retained::new(1);
    for n in 0..many {
        let n = u32::try_from(u64::from(n) * 48_271 % u64::from(many)).unwrap();
        retained.set(message(&command(n / 9, n)));
    }
    retained
}

/// A whole scan, in the steps that the shard takes.
fn scan(retained: &Retained, filter: &str, found: &mut Vec<Message>) -> usize {
    let filter = Filter::parse(filter).unwrap();
    let budget = ScanBudget {
        topics: 4096,
        messages: 256,
        bytes: 256 * 1024,
    };
    let mut after: Option<Box<str>> = None;
    let mut count = 0;
    loop {
        found.clear();
        let end = retained.scan(filter, after.as_deref(), budget, found);
        count += found.len();
        let Scan::More { after: last } = end else {
            return count;
        };
        after = Some(last);
    }
}

fn retaining(criterion: &mut Criterion) {
    let many = many();
    let mut retained = filled(many);
    let mut group = criterion.benchmark_group("retained");
    group.sample_size(10);
    let topics = drawn(many, 1 << 16);
    let mut next = topics.iter().cycle();
    best("make and replace", || {
        retained.set(message(next.next().unwrap()))
    });
    best("make, remove and set", || {
        let message = message(next.next().unwrap());
        _ = retained.remove(message.topic());
        retained.set(message)
    });
    group.bench_function("replace", |bench| {
        bench.iter_batched(
            || message(next.next().unwrap()),
            |message| retained.set(message),
            BatchSize::LargeInput,
        );
    });
    let mut next = topics.iter().cycle();
    group.bench_function("remove and set", |bench| {
        bench.iter_batched(
            || message(next.next().unwrap()),
            |message| {
                retained.remove(message.topic());
                retained.set(message)
            },
            BatchSize::LargeInput,
        );
    });
    let mut found = Vec::new();
    for filter in [
        "#",
        "fleet/+/vehicle/000123/cmd/+",
        "fleet/eu/vehicle/+/cmd/horn",
        "+/+/x",
    ] {
        println!(
            "{filter} finds {} of {many}",
            scan(&retained, filter, &mut found)
        );
        group.bench_function(format!("scan {filter}"), |bench| {
            bench.iter(|| scan(&retained, filter, &mut found));
        });
    }
    group.finish();
}

fn all(criterion: &mut Criterion) {
    memory();
    matching(criterion);
    changing(criterion);
    retaining(criterion);
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .measurement_time(std::time::Duration::from_secs(3))
        .warm_up_time(std::time::Duration::from_secs(1));
    targets = all
}
criterion_main!(benches);
