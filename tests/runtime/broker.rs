//! A broker in this process.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;

use shardmq::runtime::net::Driver;
use shardmq::runtime::{BootError, ListenOptions, RuntimeOptions, Started, StopHandle, run};

use crate::client::{Client, PATIENCE};

/// How a broker is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) driver: Driver,
    pub(crate) shards: usize,
}

impl Run {
    pub(crate) const ALL: [Self; 4] = [
        Self::new(Driver::IoUring, 1),
        Self::new(Driver::IoUring, 2),
        Self::new(Driver::Epoll, 1),
        Self::new(Driver::Epoll, 2),
    ];
    pub(crate) const ONE_SHARD: [Self; 2] = [Self::ALL[0], Self::ALL[2]];
    pub(crate) const TWO_SHARDS: [Self; 2] = [Self::ALL[1], Self::ALL[3]];

    const fn new(driver: Driver, shards: usize) -> Self {
        Self { driver, shards }
    }
}

pub(crate) struct Broker {
    pub(crate) address: SocketAddr,
    pub(crate) started: Started,
    stop: StopHandle,
    thread: Option<JoinHandle<Result<(), BootError>>>,
}

impl Broker {
    pub(crate) fn start(run: Run) -> Self {
        Self::start_with(run, |_| ())
    }

    pub(crate) fn start_with(how: Run, change: impl FnOnce(&mut RuntimeOptions)) -> Self {
        let (ready, started) = mpsc::channel();
        let mut options = options(how, move |broker| ready.send(broker).unwrap());
        options.catch_signals = false;
        change(&mut options);
        let thread = std::thread::Builder::new()
            .spawn(move || run(options))
            .unwrap();
        let started: Started = started
            .recv_timeout(PATIENCE)
            .expect("the broker is ready in time");
        Self {
            address: started.listeners[0].address().unwrap(),
            stop: started.stop.clone(),
            started,
            thread: Some(thread),
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::open(self.address)
    }

    pub(crate) fn stop(mut self) -> Result<(), BootError> {
        self.stop.stop();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take()
            && !std::thread::panicking()
        {
            thread.join().unwrap().unwrap();
        }
    }
}

pub(crate) fn options(how: Run, ready: impl FnOnce(Started) + Send + 'static) -> RuntimeOptions {
    RuntimeOptions {
        listeners: vec![ListenOptions::tcp("test", "127.0.0.1:0".parse().unwrap())],
        driver: how.driver,
        shards: how.shards,
        ready: Box::new(ready),
        ..RuntimeOptions::default()
    }
}
