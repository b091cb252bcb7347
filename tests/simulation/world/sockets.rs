//! What the driver of a shard does with sockets.

use shardmq::shard::{CloseCause, ConnKey, Event, Peer};

use super::{Link, Observation, PEER, Pace, Place, World, split};
use crate::random::Random;

impl World {
    pub(super) fn accept(&mut self, index: usize) -> bool {
        let accepts = std::mem::take(&mut self.nodes[index].accepts);
        let busy = !accepts.is_empty();
        for (link, unread) in accepts {
            let node = &mut self.nodes[index];
            let slot = node.free.pop().unwrap_or_else(|| {
                node.generations.push(0);
                (node.generations.len() - 1) as u32
            });
            let conn = ConnKey {
                index: slot,
                generation: node.generations[slot as usize],
            };
            node.links.insert(conn, link);
            self.sockets[link.0].place = Place::On(index, conn);
            let peer = Peer::new(0, PEER.into());
            let moved = !unread.is_empty();
            if !moved {
                node.shard.open(conn, peer.clone(), self.now, &mut node.out);
            }
            self.observations
                .push(Observation::Opened { link, shard: index });
            self.sockets[link.0].moving = 0;
            if moved {
                self.read(index, conn, link, &unread, Some(peer));
            }
        }
        busy
    }

    /// Gives bytes to the core, and notes which packets it has worked off.
    fn ingest(&mut self, index: usize, conn: ConnKey, link: Link, bytes: &[u8]) {
        self.read(index, conn, link, bytes, None);
    }

    /// The same, for a connection that another shard handed over if there is a peer.
    fn read(&mut self, index: usize, conn: ConnKey, link: Link, bytes: &[u8], peer: Option<Peer>) {
        let node = &mut self.nodes[index];
        let known = !node.out.closes.iter().any(|close| close.conn == conn);
        match peer {
            Some(peer) => node.shard.adopt(conn, peer, bytes, self.now, &mut node.out),
            None => node.shard.ingest(conn, bytes, self.now, &mut node.out),
        }
        let socket = &mut self.sockets[link.0];
        socket.read += bytes.len() as u64;
        if let Some(handoff) = node
            .out
            .handoffs
            .iter()
            .find(|handoff| handoff.conn == conn)
        {
            socket.moving = handoff.unread.len() as u64;
            socket.read -= socket.moving;
            return;
        }
        while let Some((_, packet)) = socket.packets.pop_front_if(|(end, _)| *end <= socket.read) {
            if known {
                self.observations.push(Observation::Packet {
                    link,
                    shard: index,
                    bytes: packet,
                });
            }
        }
    }

    pub(super) fn read_sockets(&mut self, index: usize, random: &mut Random, pace: Pace) -> bool {
        let mut busy = false;
        let links: Vec<(ConnKey, Link)> = self.nodes[index]
            .links
            .iter()
            .map(|(&conn, &link)| (conn, link))
            .collect();
        for (conn, link) in links {
            if busy && self.one_read_a_turn {
                break;
            }
            if pace == Pace::Random && random.chance(30) {
                continue;
            }
            let node = &self.nodes[index];
            if node.out.handoffs.iter().any(|handoff| handoff.conn == conn) {
                continue;
            }
            busy |= self.write_socket(index, conn, link, random, pace);
            let held = self.nodes[index].out.live_held() > 0 && random.chance(50);
            let socket = &mut self.sockets[link.0];
            let length = match pace {
                Pace::Everything => socket.to_broker.len(),
                Pace::Random if held || socket.to_broker.is_empty() => 0,
                Pace::Random if random.chance(40) => socket.to_broker.len(),
                Pace::Random => 1 + random.below(socket.to_broker.len().min(60)),
            };
            if length > 0 {
                busy = true;
                let bytes: Vec<u8> = socket.to_broker.drain(..length).collect();
                self.ingest(index, conn, link, &bytes);
            }
            let socket = &mut self.sockets[link.0];
            let node = &mut self.nodes[index];
            let moving = node.out.handoffs.iter().any(|handoff| handoff.conn == conn);
            if socket.cut && socket.to_broker.is_empty() && !moving {
                busy = true;
                let known = !node.out.closes.iter().any(|close| close.conn == conn);
                node.shard
                    .close(conn, CloseCause::Eof, self.now, &mut node.out);
                if known {
                    socket.place = Place::Gone;
                    node.gone.push(conn);
                    self.observations.push(Observation::Closed { link });
                }
            }
        }
        busy
    }

    /// The driver sends what it could not send before.
    fn write_socket(
        &mut self,
        index: usize,
        conn: ConnKey,
        link: Link,
        random: &mut Random,
        pace: Pace,
    ) -> bool {
        let socket = &mut self.sockets[link.0];
        if socket.stuck || socket.unsent.is_empty() {
            return false;
        }
        let length = match pace {
            Pace::Everything => socket.unsent.len(),
            Pace::Random => 1 + random.below(socket.unsent.len()),
        };
        let sent: Vec<u8> = socket.unsent.drain(..length).collect();
        socket.to_client.extend(sent);
        let node = &mut self.nodes[index];
        node.out.set_unsent(conn, socket.unsent.len());
        if node.out.take_wants_writable(conn) {
            node.shard.writable(conn, self.now, &mut node.out);
        }
        true
    }

    pub(super) fn drain(&mut self, index: usize, random: &mut Random, pace: Pace) -> bool {
        let mut busy = false;
        while let Some(conn) = self.nodes[index].out.touched() {
            busy = true;
            self.send_output(index, conn, random, pace);
        }
        for conn in std::mem::take(&mut self.nodes[index].gone) {
            self.forget(index, conn);
        }
        for close in std::mem::take(&mut self.nodes[index].out.closes) {
            busy = true;
            if let Some(&link) = self.nodes[index].links.get(&close.conn) {
                let socket = &mut self.sockets[link.0];
                let unsent = std::mem::take(&mut socket.unsent);
                socket.to_client.extend(unsent);
                socket.place = Place::Gone;
                socket.closed = true;
                self.observations.push(Observation::Dropped { link });
            }
            self.forget(index, close.conn);
        }
        for handoff in std::mem::take(&mut self.nodes[index].out.handoffs) {
            busy = true;
            if let Some(&link) = self.nodes[index].links.get(&handoff.conn) {
                self.sockets[link.0].place = Place::Waiting;
                self.observations.push(Observation::Moved { link });
                self.forget(index, handoff.conn);
                self.nodes[handoff.to.index()]
                    .accepts
                    .push_back((link, handoff.unread));
            }
        }
        let node = &mut self.nodes[index];
        for conn in node.out.established.drain(..) {
            if let Some(link) = node.links.get(&conn) {
                self.sockets[link.0].established = true;
            }
        }
        for event in node.out.events.drain(..) {
            if matches!(event, Event::Violation { .. } | Event::Refused { .. }) {
                self.observations.push(Observation::Complaint { event });
            }
        }
        busy
    }

    fn send_output(&mut self, index: usize, conn: ConnKey, random: &mut Random, pace: Pace) {
        let node = &mut self.nodes[index];
        let mut bytes = Vec::new();
        node.out.swap_output(conn, &mut bytes);
        let Some(&link) = node.links.get(&conn) else {
            return;
        };
        let mut frames = split(&bytes);
        self.packets_sent += frames.len() as u64;
        self.bytes_sent += bytes.len() as u64;
        node.out.return_output(bytes);
        self.mutator.output(&mut frames);
        let socket = &mut self.sockets[link.0];
        for frame in frames {
            socket.unsent.extend_from_slice(&frame);
            self.observations
                .push(Observation::Output { link, bytes: frame });
        }
        if !socket.stuck {
            let length = match pace {
                Pace::Random if random.chance(20) => random.below(socket.unsent.len() + 1),
                _ => socket.unsent.len(),
            };
            let sent: Vec<u8> = socket.unsent.drain(..length).collect();
            socket.to_client.extend(sent);
        }
        let node = &mut self.nodes[index];
        node.out.set_unsent(conn, socket.unsent.len());
        if node.out.take_wants_writable(conn) {
            node.shard.writable(conn, self.now, &mut node.out);
        }
    }
}
