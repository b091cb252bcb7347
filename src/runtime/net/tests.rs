//! What both backends must do alike.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::probe::exercise;
use super::*;
use crate::runtime::sys;

const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a test on either backend.
fn on_both(test: impl Fn(&mut Harness)) {
    for driver in [Driver::IoUring, Driver::Epoll] {
        let chosen = choose(driver, 1).unwrap_or_else(|error| panic!("{error}"));
        let net = Net::open(&chosen).unwrap();
        println!("on {}", net.driver_name());
        test(&mut Harness {
            net,
            ends: VecDeque::new(),
        });
    }
}

struct Harness {
    net: Net,
    ends: VecDeque<Completion>,
}

impl Harness {
    fn is_epoll(&self) -> bool {
        self.net.driver_name() == "epoll"
    }

    /// Whether nothing happens for a while, in which everything that is due would.
    fn is_quiet(&mut self) -> bool {
        self.turn(Duration::from_millis(30));
        self.ends.is_empty()
    }

    fn turn(&mut self, timeout: Duration) {
        self.net.submit_and_wait(Wait {
            events: 1,
            gather_us: 0,
            timeout,
        });
        self.drain();
    }

    /// Takes in the completions that somebody waits for.
    fn drain(&mut self) {
        let mut ends = Vec::new();
        self.net.drain(&mut ends);
        ends.retain(|end| end.token.operation() != Operation::Ignored);
        self.ends.extend(ends);
    }

    /// The next completion.
    fn next(&mut self) -> Completion {
        let deadline = Instant::now() + PATIENCE;
        while self.ends.is_empty() {
            assert!(Instant::now() < deadline, "a completion comes");
            self.turn(Duration::from_millis(100));
        }
        self.ends.pop_front().unwrap()
    }

    fn next_of(&mut self, token: Token) -> Completion {
        let end = self.next();
        assert_eq!(end.token, token, "{end:?}");
        end
    }

    /// Takes the bytes out of a completion.
    fn text(&mut self, mut end: Completion) -> Vec<u8> {
        let received = end.received.take().expect("bytes came");
        let bytes = self.net.bytes(&received).to_vec();
        assert_eq!(Ok(bytes.len()), usize::try_from(end.result));
        self.net.give_back(received);
        bytes
    }

    /// Receives on `token` until there are `length` bytes.
    fn read(&mut self, token: Token, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let end = self.next_of(token);
            assert!(end.result > 0 && end.more, "{end:?}");
            bytes.extend(self.text(end));
        }
        bytes
    }
}

fn pair() -> (UnixStream, UnixStream) {
    UnixStream::pair().unwrap()
}

fn receive_token(index: u32, generation: u32) -> Token {
    Token::new(Operation::ReceiveMany, index, generation)
}

#[test]
fn the_exercise_of_the_probe_works() {
    on_both(|harness| {
        exercise(&mut harness.net, "test").unwrap_or_else(|error| panic!("{error}"));
    });
}

#[test]
fn what_a_full_socket_refuses_is_sent_when_it_has_room() {
    on_both(|harness| {
        let (ours, mut theirs) = pair();
        let token = Token::new(Operation::Send, 5, 1);
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|byte| (byte % 251) as u8).collect();
        let mut output = Output::default();
        output.send(bytes.clone(), &mut harness.net, ours.as_fd(), token);
        let peer = std::thread::Builder::new().spawn(move || {
            let mut read = vec![0; 3_000_000];
            theirs.read_exact(&mut read).unwrap();
            assert!(read == bytes, "as they were sent");
            theirs
        });
        let peer = peer.unwrap();
        loop {
            let end = harness.next_of(token);
            match output.complete(&end) {
                Sent::All => break,
                Sent::Part => output.send_rest(&mut harness.net, ours.as_fd(), token),
                Sent::Failed(errno) => panic!("error {errno}"),
            }
        }
        assert!(!output.is_in_flight());
        assert_eq!(output.unsent(), 0);
        // A socket that was blocked once is received from like any other.
        let (receive, mut theirs) = (receive_token(5, 1), peer.join().unwrap());
        harness.net.receive_many(ours.as_fd(), receive);
        theirs.write_all(b"thanks").unwrap();
        assert_eq!(harness.read(receive, 6), b"thanks");
        assert!(harness.is_quiet());
    });
}

#[test]
fn a_send_that_waits_can_be_cancelled() {
    on_both(|harness| {
        let (ours, _theirs) = pair();
        let token = Token::new(Operation::Send, 0, 7);
        let mut output = Output::default();
        output.send(vec![0; 3_000_000], &mut harness.net, ours.as_fd(), token);
        let end = harness.next_of(token);
        assert_eq!(output.complete(&end), Sent::Part);
        output.send_rest(&mut harness.net, ours.as_fd(), token);
        assert!(harness.is_quiet());
        assert!(output.is_waiting());
        harness.net.cancel(token);
        let end = harness.next_of(token);
        // The ring tells of what was sent before; epoll knows it already.
        assert!(end.result == -libc::ECANCELED || end.result > 0, "{end:?}");
        let _ = output.complete(&end);
        assert!(!output.is_in_flight());
    });
}

#[test]
fn a_send_to_nobody_fails() {
    on_both(|harness| {
        let (ours, theirs) = pair();
        drop(theirs);
        let token = Token::new(Operation::Send, 0, 0);
        let mut output = Output::default();
        output.send(b"late".to_vec(), &mut harness.net, ours.as_fd(), token);
        let end = harness.next_of(token);
        assert_eq!(output.complete(&end), Sent::Failed(libc::EPIPE));
    });
}

#[test]
fn a_stream_is_received_to_its_end() {
    on_both(|harness| {
        let (ours, mut theirs) = pair();
        let token = receive_token(2, 9);
        harness.net.receive_many(ours.as_fd(), token);
        let bytes: Vec<u8> = (0..300_000_u32).map(|byte| (byte % 241) as u8).collect();
        let sent = bytes.clone();
        let writer = std::thread::Builder::new().spawn(move || {
            theirs.write_all(&sent).unwrap();
        });
        assert!(harness.read(token, bytes.len()) == bytes);
        writer.unwrap().join().unwrap();
        let end = harness.next_of(token);
        assert_eq!((end.result, end.more), (0, false), "the end of the stream");
        assert!(harness.is_quiet(), "and nothing behind it");
    });
}

#[test]
fn bytes_and_the_end_that_came_together_are_both_told() {
    on_both(|harness| {
        for generation in 0..20 {
            let (ours, mut theirs) = pair();
            let token = receive_token(2, generation);
            theirs.write_all(b"last words").unwrap();
            theirs.shutdown(Shutdown::Both).unwrap();
            harness.net.receive_many(ours.as_fd(), token);
            assert_eq!(harness.read(token, 10), b"last words");
            let end = harness.next_of(token);
            assert_eq!((end.result, end.more), (0, false));
        }
    });
}

#[test]
fn a_receive_that_is_cancelled_misses_nothing() {
    on_both(|harness| {
        let (ours, mut theirs) = pair();
        let token = receive_token(0, 3);
        harness.net.receive_many(ours.as_fd(), token);
        theirs.write_all(b"one").unwrap();
        assert_eq!(harness.read(token, 3), b"one");
        harness.net.cancel(token);
        let end = harness.next_of(token);
        assert_eq!((end.result, end.more), (-libc::ECANCELED, false));
        theirs.write_all(b"two").unwrap();
        assert!(harness.is_quiet(), "nobody asks");
        harness.net.receive_many(ours.as_fd(), token);
        assert_eq!(harness.read(token, 3), b"two");
        theirs.write_all(b"three").unwrap();
        assert_eq!(harness.read(token, 5), b"three");
        // A cancellation of what is not there says nothing.
        harness.net.cancel(receive_token(0, 2));
        harness.net.cancel(receive_token(99, 0));
        assert!(harness.is_quiet());
    });
}

#[test]
fn a_slot_and_a_descriptor_number_may_be_used_again() {
    on_both(|harness| {
        for generation in 0..50 {
            let (ours, mut theirs) = pair();
            let once = Token::new(Operation::ReceiveOnce, 4, generation);
            harness.net.receive_once(ours.as_fd(), once);
            theirs.write_all(&generation.to_be_bytes()).unwrap();
            let end = harness.next_of(once);
            assert!(!end.more);
            assert_eq!(harness.text(end), generation.to_be_bytes());
            // Some of them are closed while there is still something to read.
            theirs.write_all(b"unread").unwrap();
            if generation % 2 == 0 {
                let many = receive_token(4, generation);
                harness.net.receive_many(ours.as_fd(), many);
                assert_eq!(harness.read(many, 6), b"unread");
                harness.net.cancel(many);
                assert_eq!(harness.next_of(many).result, -libc::ECANCELED);
            }
        }
    });
}

#[test]
fn a_handshake_is_read_a_little_at_a_time() {
    on_both(|harness| {
        let (ours, mut theirs) = pair();
        let once = Token::new(Operation::ReceiveOnce, 0, 0);
        theirs.write_all(&[7; 1300]).unwrap();
        for length in [512, 512, 276] {
            harness.net.receive_once(ours.as_fd(), once);
            let end = harness.next_of(once);
            assert_eq!(harness.text(end).len(), length);
        }
    });
}

#[test]
fn a_socket_that_was_released_is_another_drivers() {
    on_both(|harness| {
        let (ours, mut theirs) = pair();
        let once = Token::new(Operation::ReceiveOnce, 0, 0);
        harness.net.receive_once(ours.as_fd(), once);
        theirs.write_all(b"hello").unwrap();
        let end = harness.next_of(once);
        assert_eq!(harness.text(end), b"hello");
        harness.net.release(ours.as_fd(), once);
        theirs.write_all(b"over there").unwrap();
        assert!(harness.is_quiet());
        let chosen = if harness.is_epoll() {
            choose(Driver::Epoll, 1)
        } else {
            choose(Driver::IoUring, 1)
        };
        let mut other = Harness {
            net: Net::open(&chosen.unwrap()).unwrap(),
            ends: VecDeque::new(),
        };
        let many = receive_token(0, 0);
        other.net.receive_many(ours.as_fd(), many);
        assert_eq!(other.read(many, 10), b"over there");
    });
}

#[test]
fn who_gives_no_bytes_back_is_sent_no_more() {
    on_both(|harness| {
        let (ours, theirs) = pair();
        let token = receive_token(0, 0);
        harness.net.receive_many(ours.as_fd(), token);
        theirs
            .set_write_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let mut writer = &theirs;
        let mut written = 0;
        let mut held = Vec::new();
        let mut over = false;
        // Ends when neither the socket nor the buffers take more.
        while let Ok(count) = writer.write(&[1; 32 * 1024]) {
            written += count;
            harness.turn(Duration::ZERO);
            for end in harness.ends.drain(..) {
                over |= !end.more;
                held.extend(end.received);
            }
        }
        let length: usize = held.iter().map(|held| harness.net.bytes(held).len()).sum();
        assert!(length <= 512 * 1024, "{length} bytes held");
        assert!(length >= 256 * 1024, "{length} bytes held");
        for received in held {
            harness.net.give_back(received);
        }
        // The ring has ended the receive for want of a buffer; epoll just waits.
        assert_eq!(over, !harness.is_epoll());
        if over {
            harness.net.receive_many(ours.as_fd(), token);
        }
        let mut rest = written - length;
        while rest > 0 {
            let end = harness.next_of(token);
            if end.more {
                rest -= harness.text(end).len();
            } else {
                assert_eq!(end.result, -libc::ENOBUFS);
                harness.net.receive_many(ours.as_fd(), token);
            }
        }
    });
}

#[test]
fn connections_are_accepted_until_told_otherwise() {
    on_both(|harness| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let listener = OwnedFd::from(listener);
        let token = Token::new(Operation::Accept, 1, 0);
        harness.net.accept(listener.as_fd(), token);
        assert!(harness.is_quiet());
        let clients: Vec<_> = (0..100)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        let mut accepted: Vec<TcpStream> = Vec::new();
        while accepted.len() < clients.len() {
            let end = harness.next_of(token);
            assert!(end.more, "{end:?}");
            accepted.push(end.accepted().unwrap().into());
        }
        harness.net.cancel(token);
        let end = harness.next_of(token);
        assert_eq!((end.result, end.more), (-libc::ECANCELED, false));
        let late = TcpStream::connect(address).unwrap();
        assert!(harness.is_quiet());
        harness.net.accept(listener.as_fd(), token);
        let end = harness.next_of(token);
        let socket = TcpStream::from(end.accepted().unwrap());
        assert_eq!(socket.peer_addr().unwrap(), late.local_addr().unwrap());
    });
}

#[test]
fn bells_wakes_and_alarms_are_told() {
    on_both(|harness| {
        let bell = sys::eventfd().unwrap();
        let token = Token::plain(Operation::Bell);
        harness.net.watch(bell.as_fd(), token);
        assert!(harness.is_quiet());
        let mut file = std::fs::File::from(bell.try_clone().unwrap());
        for _ in 0..3 {
            file.write_all(&1_u64.to_ne_bytes()).unwrap();
            assert!(harness.next_of(token).more);
        }
        let number = harness.net.raw_fd();
        harness.net.wake(number);
        harness.next_of(Token::plain(Operation::Wake));
        let began = Instant::now();
        harness.net.set_alarm(Duration::from_millis(20));
        harness.next_of(Token::plain(Operation::Alarm));
        assert!(began.elapsed() >= Duration::from_millis(20));
        assert!(harness.is_quiet());
    });
}

#[test]
fn another_thread_is_woken_from_its_sleep() {
    on_both(|harness| {
        let kind = if harness.is_epoll() {
            Driver::Epoll
        } else {
            Driver::IoUring
        };
        let (number, numbers) = std::sync::mpsc::channel();
        let sleeper = std::thread::Builder::new().spawn(move || {
            let mut other = Harness {
                net: Net::open(&choose(kind, 1).unwrap()).unwrap(),
                ends: VecDeque::new(),
            };
            number.send(other.net.raw_fd()).unwrap();
            for _ in 0..100 {
                other.next_of(Token::plain(Operation::Wake));
                number.send(0).unwrap();
            }
        });
        let other = numbers.recv().unwrap();
        for _ in 0..100 {
            harness.net.wake(other);
            harness.net.submit();
            numbers.recv_timeout(PATIENCE).expect("it woke up");
        }
        sleeper.unwrap().join().unwrap();
        // Nobody is there any more: nothing happens, in whatever file has the number now.
        harness.net.wake(other);
        harness.net.submit();
    });
}

#[test]
fn a_gathering_wait_brings_what_came_before_and_in_it() {
    on_both(|harness| {
        const WINDOW_US: u32 = 10_000;
        let (ours, mut theirs) = pair();
        let bell = sys::eventfd().unwrap();
        harness.net.receive_many(ours.as_fd(), receive_token(0, 0));
        harness
            .net
            .watch(bell.as_fd(), Token::plain(Operation::Bell));
        harness.net.submit();
        theirs.write_all(b"first").unwrap();
        let writer = std::thread::Builder::new().spawn(move || {
            std::thread::sleep(Duration::from_millis(1));
            let mut bell = std::fs::File::from(bell);
            bell.write_all(&1_u64.to_ne_bytes()).unwrap();
            bell
        });
        // A writer that the machine holds up for the whole window is seen by the next wait.
        while harness.ends.len() < 2 {
            harness.net.submit_and_wait(Wait {
                events: 2,
                gather_us: WINDOW_US,
                timeout: PATIENCE,
            });
            harness.drain();
        }
        drop(writer.unwrap().join().unwrap());
    });
}
