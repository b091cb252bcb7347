//! The layers below MQTT against whatever bytes: what fuzzing found worth keeping is replayed here.

#[path = "links/exercise.rs"]
mod exercise;

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name);
    let files = fs::read_dir(folder).expect("the corpus is part of the repository");
    let files = files.map(|file| file.expect("a folder can be listed").path());
    let files: Vec<_> = files
        .map(|path| {
            let bytes = fs::read(&path).expect("a file can be read");
            (path, bytes)
        })
        .collect();
    assert!(!files.is_empty(), "{name}");
    files
}

#[test]
fn the_fuzz_corpora_hold() {
    for (path, bytes) in corpus("websocket") {
        println!("{}", path.display());
        exercise::websocket(&bytes);
    }
    for (path, bytes) in corpus("proxy") {
        println!("{}", path.display());
        exercise::proxy(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Files of the corpora, cut, joined and changed: a fuzzer for machines that have none.
    #[test]
    fn what_grows_from_the_corpora_holds(
        picks in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..4),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        is_proxy: bool,
    ) {
        let files = corpus(if is_proxy { "proxy" } else { "websocket" });
        let mut bytes = Vec::new();
        for (file, length) in picks {
            let (_, content) = &files[file.index(files.len())];
            bytes.extend(&content[..=length.index(content.len())]);
        }
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if is_proxy {
            exercise::proxy(&bytes);
        } else {
            exercise::websocket(&bytes);
        }
    }
}
