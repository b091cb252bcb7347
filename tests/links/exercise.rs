//! What any bytes must hold below MQTT; for the fuzz targets and for the test that replays what they found.

use std::sync::Arc;

use shardmq::link::proxy::{self, Reader};
use shardmq::link::{Link, Received, Scratch, ws};

/// Bytes from a client, first the request, behind it frames. The first byte says where the stream is cut;
/// cut or whole, the same comes out.
pub(crate) fn websocket(bytes: &[u8]) {
    let Some((&cut, stream)) = bytes.split_first() else {
        return;
    };
    let cut = usize::from(cut) * stream.len() / 255;
    let whole = pass(&[stream]);
    let parts = pass(&[&stream[..cut], &stream[cut..]]);
    assert_eq!(whole, parts, "the same wherever it is cut");
    let (_, plain, reply) = &whole;
    assert!(plain.len() <= stream.len(), "nothing is made up");
    assert!(
        reply.len() <= 4096 + 2 * stream.len(),
        "answers are bounded by what is asked"
    );
}

/// How it ended, what was for MQTT, what is answered.
fn pass(parts: &[&[u8]]) -> (Received, Vec<u8>, Vec<u8>) {
    let rules = ws::Rules {
        paths: vec!["/mqtt".to_owned(), "/".to_owned()],
        origins: Vec::new(),
    };
    let mut session = ws::Session::new(Arc::new(rules));
    let (mut plain, mut reply) = (Vec::new(), Vec::new());
    let mut received = Received::GoesOn;
    for part in parts {
        if received == Received::GoesOn {
            received = session.receive(part, &mut plain, &mut reply);
        }
        assert!(
            session.is_open() || plain.is_empty(),
            "no MQTT before there is a WebSocket"
        );
    }
    session.close(&mut reply);
    let length = plain.len();
    session.close(&mut reply);
    assert_eq!(plain.len(), length);
    (received, plain, reply)
}

/// Bytes as the start of a connection behind a proxy; the first says where they are cut.
pub(crate) fn proxy(bytes: &[u8]) {
    let Some((&cut, stream)) = bytes.split_first() else {
        return;
    };
    let cut = usize::from(cut) * stream.len() / 255;
    let whole = proxy::parse(stream);
    let mut reader = Reader::default();
    let mut split = reader.read(&stream[..cut]);
    if split == Ok(None) {
        let rest = reader.read(&stream[cut..]);
        split = rest.map(|found| found.map(|(header, used)| (header, cut + used)));
    }
    assert_eq!(whole, split, "the same wherever it is cut");
    if let Ok(Some((_, used))) = whole {
        assert!(used <= stream.len());
        let mut link = Link::new(([192, 0, 2, 1], 1).into()).with_proxy();
        let mut scratch = Scratch::default();
        assert_eq!(link.receive(stream, &mut scratch), Received::GoesOn);
        assert!(link.is_open() && link.is_bare());
        assert_eq!(
            scratch.plain,
            &stream[used..],
            "what is behind it is not its own"
        );
    }
}
