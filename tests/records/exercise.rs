//! What a decoder of records must bear: shared by the tests and the fuzzer.

use shardmq::journal::{HEADER_BYTES, Header, Identity, Record, VERSION, records};

const IDENTITY: Identity = Identity { log: 7, shard: 0 };

/// Reads `bytes` as a frame's records: behind the number that items are relative to, of eight bytes.
/// Whatever they are, they are read to their end or refused, and receivers that were accepted can be
/// counted.
pub fn exercise(bytes: &[u8]) {
    let (base, content) = bytes.split_at(bytes.len().min(8));
    let frame = frame(base, content);
    let (header, content) = Header::open(IDENTITY, &frame).expect("its checksum is right");
    let mut receivers = 0;
    let read = records(&header, content, |record| {
        if let Record::Message { receivers: all, .. } = record {
            let mut last = None;
            all.for_each(|recipient| {
                receivers += 1;
                let this = (recipient.copy.qos, recipient.session);
                assert!(last != Some(this), "a session is named twice in a row");
                last = Some(this);
            });
        }
    });
    std::hint::black_box((read.is_ok(), receivers));
}

/// A frame with these records. Where its fields stand is part of the format.
fn frame(base: &[u8], content: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; HEADER_BYTES];
    frame[..4].copy_from_slice(b"SMQJ");
    frame[8..10].copy_from_slice(&VERSION.to_le_bytes());
    frame[12..16].copy_from_slice(&(content.len() as u32).to_le_bytes());
    frame[16..24].copy_from_slice(&IDENTITY.log.to_le_bytes());
    frame[72..72 + base.len()].copy_from_slice(base);
    frame.extend_from_slice(content);
    let sum = crc32fast::hash(&frame[8..]);
    frame[4..8].copy_from_slice(&sum.to_le_bytes());
    frame
}
