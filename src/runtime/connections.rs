//! The sockets of a shard, in slots that are used again.
//!
//! A slot is freed, and its socket closed, only when nothing of it is left with the kernel: no receive,
//! no send, no request that was queued and not submitted. So a descriptor number never names another
//! connection than the one a request was made for, and a completion always finds its slot. Orders of
//! the core may be late: its keys carry the generation of the slot, which says so.

use std::os::fd::OwnedFd;

use crate::chunks::Chunks;
use crate::link::Link;
use crate::shard::ConnKey;

use super::net::{Output, Token};

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its link is not open: the core does not know it.
    Linking,
    /// Its CONNECT is not complete; it may move to another shard.
    Handshake,
    /// It stays here.
    Open,
    /// The core closed it; its last bytes are being sent. What arrives is thrown away.
    Flushing,
    /// Its last bytes are sent and our side is shut; the client is to close its own.
    Lingering,
    /// It is closed as soon as the kernel has nothing of it any more.
    Dead,
}

/// The receive of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receive {
    /// There is none.
    Idle,
    /// It is with the kernel.
    Armed,
    /// It is with the kernel and was told to end.
    Cancelled,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: OwnedFd,
    pub(super) output: Output,
    /// What lies between its bytes and those of MQTT; nothing for MQTT in the clear.
    pub(super) link: Option<Box<Link>>,
    /// Which `[[listener]]` it counts for.
    pub(super) listener: u16,
    pub(super) phase: Phase,
    pub(super) receive: Receive,
    /// Which kind of receive, where there is one.
    pub(super) receives_many: bool,
    /// Whether the core wants to hear what arrives.
    pub(super) reading: bool,
    /// Whether the stream from the client is over.
    pub(super) ended: bool,
}

impl Connection {
    /// Whether the core knows of it.
    pub(super) fn is_known(&self) -> bool {
        matches!(self.phase, Phase::Handshake | Phase::Open)
    }

    /// Whether the kernel has nothing of it.
    pub(super) fn is_at_rest(&self) -> bool {
        self.receive == Receive::Idle && !self.output.is_in_flight()
    }
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    connection: Option<Connection>,
}

/// All connections of a shard.
#[derive(Debug, Default)]
pub(super) struct Connections {
    slots: Chunks<Slot>,
    free: Vec<u32>,
}

impl Connections {
    /// Takes a socket in; gives it back if there is no slot left.
    pub(super) fn insert(
        &mut self,
        socket: OwnedFd,
        listener: u16,
        link: Option<Box<Link>>,
    ) -> Result<ConnKey, OwnedFd> {
        let index = match self.free.pop() {
            Some(index) => index,
            None => match u32::try_from(self.slots.len()) {
                Ok(index) if index <= Token::MAX_INDEX => {
                    self.slots.push(Slot {
                        generation: 0,
                        connection: None,
                    });
                    index
                }
                _ => return Err(socket),
            },
        };
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return Err(socket);
        };
        slot.connection = Some(Connection {
            socket,
            output: Output::default(),
            phase: match &link {
                Some(link) if !link.is_open() => Phase::Linking,
                _ => Phase::Handshake,
            },
            link,
            listener,
            receive: Receive::Idle,
            receives_many: false,
            reading: true,
            ended: false,
        });
        Ok(ConnKey {
            index,
            generation: slot.generation,
        })
    }

    /// The connection that `conn` names, unless it is gone.
    pub(super) fn get_mut(&mut self, conn: ConnKey) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(conn.index as usize)?;
        if slot.generation == conn.generation {
            slot.connection.as_mut()
        } else {
            None
        }
    }

    /// Frees the slot of a connection that is at rest.
    pub(super) fn remove(&mut self, conn: ConnKey) -> Option<Connection> {
        let slot = self.slots.get_mut(conn.index as usize)?;
        if slot.generation != conn.generation {
            return None;
        }
        let connection = slot
            .connection
            .take_if(|connection| connection.is_at_rest())?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(conn.index);
        Some(connection)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// All of them.
    pub(super) fn keys(&self) -> Vec<ConnKey> {
        (0_u32..)
            .zip(self.slots.iter())
            .filter(|(_, slot)| slot.connection.is_some())
            .map(|(index, slot)| ConnKey {
                index,
                generation: slot.generation,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::sys;

    fn insert(connections: &mut Connections) -> Result<ConnKey, OwnedFd> {
        connections.insert(sys::eventfd().unwrap(), 0, None)
    }

    #[test]
    fn a_key_of_a_slot_that_is_used_again_names_nobody() {
        let mut connections = Connections::default();
        let first = insert(&mut connections).unwrap();
        assert!(connections.remove(first).is_some());
        let second = insert(&mut connections).unwrap();
        assert_eq!(first.index, second.index);
        assert!(connections.get_mut(first).is_none());
        assert!(connections.remove(first).is_none());
        assert!(connections.get_mut(second).is_some());
        assert_eq!(connections.keys(), [second]);
    }

    #[test]
    fn a_connection_that_the_kernel_works_for_stays() {
        let mut connections = Connections::default();
        let conn = insert(&mut connections).unwrap();
        connections.get_mut(conn).unwrap().receive = Receive::Cancelled;
        assert!(connections.remove(conn).is_none());
        connections.get_mut(conn).unwrap().receive = Receive::Idle;
        assert!(connections.remove(conn).is_some());
        assert_eq!(connections.len(), 0);
    }

    #[test]
    fn an_idle_connection_costs_little() {
        assert!(size_of::<Slot>() <= 80, "{} bytes", size_of::<Slot>());
    }
}
