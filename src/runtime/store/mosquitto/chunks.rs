//! The chunks of a `mosquitto.db`, versions 5 (mosquitto 1.6) and 6 (2.0).
//!
//! ```text
//! 00 B5 00 "mosquitto db"   checksum, always 0   version
//! kind, length, content     kind, length, content   …
//! ```
//!
//! Lengths, identifiers and intervals are big-endian. Numbers of messages and points in time are as
//! the machine had them that wrote the file, which is little-endian wherever mosquitto runs today; a
//! file from elsewhere is refused by its version 5 or 6 chunks naming messages that are not there.

use std::collections::HashMap;

use crate::wire::Forwarded;

use super::StoreError;

const MAGIC: [u8; 15] = *b"\x00\xB5\x00mosquitto db";

const CONFIGURATION: u32 = 1;
const MESSAGE: u32 = 2;
const CLIENT_MESSAGE: u32 = 3;
const RETAINED: u32 = 4;
const SUBSCRIPTION: u32 = 5;
const CLIENT: u32 = 6;

/// The property that a message to a client has here.
const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;

/// Whether a file that begins so is one.
pub(in super::super) fn is_one(beginning: &[u8]) -> bool {
    beginning.starts_with(&MAGIC)
}

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct Database<'a> {
    pub(super) clients: Vec<Client<'a>>,
    pub(super) subscriptions: Vec<Subscribed<'a>>,
    pub(super) messages: HashMap<u64, Stored<'a>>,
    pub(super) queued: Vec<ClientMessage<'a>>,
    pub(super) retained: Vec<u64>,
    /// Chunks of no kind that is known.
    pub(super) unknown: u64,
}

#[derive(Debug)]
pub(super) struct Client<'a> {
    pub(super) id: &'a str,
    pub(super) user: &'a str,
    pub(super) expiry_interval: u32,
    /// Seconds since 1970, 0 while connected.
    pub(super) expires_at: u64,
}

#[derive(Debug)]
pub(super) struct Subscribed<'a> {
    pub(super) client: &'a str,
    pub(super) filter: &'a str,
    pub(super) identifier: u32,
    pub(super) qos: u8,
    pub(super) options: u8,
}

#[derive(Debug)]
pub(super) struct Stored<'a> {
    pub(super) topic: &'a str,
    pub(super) payload: &'a [u8],
    /// Those that are forwarded.
    pub(super) properties: Vec<u8>,
    pub(super) qos: u8,
    pub(super) retain: bool,
    /// Seconds since 1970, 0 for never.
    pub(super) expires_at: u64,
}

#[derive(Debug)]
pub(super) struct ClientMessage<'a> {
    pub(super) client: &'a str,
    pub(super) message: u64,
    pub(super) packet_id: u16,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) state: u8,
    pub(super) to_client: bool,
    pub(super) identifiers: Vec<u32>,
}

impl<'a> Database<'a> {
    /// Reads a whole file.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, StoreError> {
        let mut cut = Cut {
            bytes,
            at: MAGIC.len() + 4,
        };
        let version = cut.u32()?;
        if !(5..=6).contains(&version) {
            return Err(cut.wrong(match version {
                0..5 => "its version is too old: let mosquitto 2.0 write it once",
                _ => "its version is newer than 6",
            }));
        }
        let mut database = Self::default();
        while cut.at < bytes.len() {
            let (kind, length) = (cut.u32()?, cut.u32()?);
            let start = cut.at;
            cut.take(length as usize)?;
            let mut chunk = Cut {
                bytes: &bytes[..cut.at],
                at: start,
            };
            database.chunk(version, kind, &mut chunk)?;
        }
        Ok(database)
    }

    fn chunk(&mut self, version: u32, kind: u32, cut: &mut Cut<'a>) -> Result<(), StoreError> {
        match kind {
            CONFIGURATION => {
                cut.take(9)?;
                if cut.u8()? != 8 {
                    return Err(cut.wrong("the numbers of messages do not have 8 bytes"));
                }
            }
            MESSAGE => {
                let id = cut.native()?;
                self.messages.insert(id, Stored::read(cut)?);
            }
            CLIENT_MESSAGE => self.queued.push(ClientMessage::read(cut)?),
            RETAINED => self.retained.push(cut.native()?),
            SUBSCRIPTION => self.subscriptions.push(Subscribed::read(cut)?),
            CLIENT => self.clients.push(Client::read(version, cut)?),
            _ => self.unknown += 1,
        }
        Ok(())
    }
}

impl<'a> Client<'a> {
    fn read(version: u32, cut: &mut Cut<'a>) -> Result<Self, StoreError> {
        let expires_at = cut.native()?;
        let expiry_interval = cut.u32()?;
        cut.u16()?; // the packet identifier that was used last
        let id = cut.u16()?;
        let mut user = 0;
        if version == 6 {
            cut.u16()?; // the port of the listener
            user = cut.u16()?;
            cut.take(4)?;
        }
        Ok(Self {
            expires_at,
            expiry_interval,
            id: cut.text(id)?,
            user: cut.text(user)?,
        })
    }
}

impl<'a> Subscribed<'a> {
    fn read(cut: &mut Cut<'a>) -> Result<Self, StoreError> {
        let identifier = cut.u32()?;
        let (client, filter) = (cut.u16()?, cut.u16()?);
        let (qos, options) = (cut.u8()?, cut.u8()?);
        cut.take(2)?;
        Ok(Self {
            identifier,
            qos,
            options,
            client: cut.text(client)?,
            filter: cut.text(filter)?,
        })
    }
}

impl<'a> Stored<'a> {
    fn read(cut: &mut Cut<'a>) -> Result<Self, StoreError> {
        let expires_at = cut.native()?;
        let payload = cut.u32()?;
        cut.u16()?; // the packet identifier of the publisher
        let (publisher, user, topic) = (cut.u16()?, cut.u16()?, cut.u16()?);
        cut.u16()?; // the port of the listener
        let (qos, retain) = (cut.u8()?, cut.u8()? != 0);
        cut.take(usize::from(publisher) + usize::from(user))?;
        let topic = cut.text(topic)?;
        let payload = cut.take(payload as usize)?;
        let mut properties = Vec::new();
        for property in Forwarded::from_bytes(cut.properties()?).iter() {
            property.encode(&mut properties);
        }
        Ok(Self {
            topic,
            payload,
            properties,
            qos,
            retain,
            expires_at,
        })
    }
}

impl<'a> ClientMessage<'a> {
    fn read(cut: &mut Cut<'a>) -> Result<Self, StoreError> {
        let message = cut.native()?;
        let packet_id = cut.u16()?;
        let client = cut.u16()?;
        let (qos, state, retain, direction) = (cut.u8()?, cut.u8()?, cut.u8()?, cut.u8()?);
        let client = cut.text(client)?;
        let mut properties = Cut {
            bytes: cut.properties()?,
            at: 0,
        };
        let mut identifiers = Vec::new();
        while properties.at < properties.bytes.len() && properties.u8()? == SUBSCRIPTION_IDENTIFIER
        {
            identifiers.push(properties.variable()?);
        }
        Ok(Self {
            client,
            message,
            packet_id,
            qos,
            retain: retain >> 4 != 0,
            state,
            to_client: direction == 1,
            identifiers,
        })
    }
}

/// Bytes that are taken off the front, and where in the file they are.
struct Cut<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cut<'a> {
    fn wrong(&self, what: &'static str) -> StoreError {
        StoreError::Mosquitto(self.at, what)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], StoreError> {
        let end = self.at.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| self.wrong("it ends in the middle of something"))?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, StoreError> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, StoreError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, StoreError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// A number in the order of the machine that wrote it.
    fn native(&mut self) -> Result<u64, StoreError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self, length: u16) -> Result<&'a str, StoreError> {
        let start = self.at;
        let text = std::str::from_utf8(self.take(length.into())?);
        text.map_err(|_| StoreError::Mosquitto(start, "this is no UTF-8"))
    }

    /// What is left: properties behind their length, or nothing.
    fn properties(&mut self) -> Result<&'a [u8], StoreError> {
        if self.at == self.bytes.len() {
            return Ok(&[]);
        }
        let length = self.variable()?;
        self.take(length as usize)
    }

    /// A Variable Byte Integer.
    fn variable(&mut self) -> Result<u32, StoreError> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.wrong("a length is too long"))
    }
}
