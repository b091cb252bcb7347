//! As much JSON as printing a message takes: strings, and whether a payload is JSON at all.

use std::fmt::Write;

/// How deep a payload may nest and still count as JSON: checking it is recursive.
const MAX_DEPTH: usize = 128;

/// Appends a string in quotes.
pub(super) fn put_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Whether a text is one JSON value.
pub(super) fn is_valid(text: &str) -> bool {
    let mut checker = Checker {
        rest: text.as_bytes(),
    };
    checker.value(0) && checker.at_end()
}

/// What is left to check. Each method consumes what it is named after, and says whether it was
/// there.
struct Checker<'a> {
    rest: &'a [u8],
}

impl Checker<'_> {
    fn value(&mut self, depth: usize) -> bool {
        self.space();
        match self.rest.first() {
            _ if depth > MAX_DEPTH => false,
            Some(b'{') => self.members(b'}', |this| {
                this.space();
                this.string() && this.token(b':') && this.value(depth + 1)
            }),
            Some(b'[') => self.members(b']', |this| this.value(depth + 1)),
            Some(b'"') => self.string(),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            _ => self.number(),
        }
    }

    /// What stands between an opening bracket and `end`, separated by commas.
    fn members(&mut self, end: u8, mut member: impl FnMut(&mut Self) -> bool) -> bool {
        self.skip(1);
        if self.token(end) {
            return true;
        }
        loop {
            if !member(self) {
                return false;
            }
            if self.token(end) {
                return true;
            }
            if !self.token(b',') {
                return false;
            }
        }
    }

    fn string(&mut self) -> bool {
        if self.rest.first() != Some(&b'"') {
            return false;
        }
        self.skip(1);
        while let Some(&byte) = self.rest.first() {
            match (byte, self.rest.get(1)) {
                (b'"', _) => {
                    self.skip(1);
                    return true;
                }
                (b'\\', Some(b'u')) => {
                    let digits = self.rest.get(2..6);
                    if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
                        return false;
                    }
                    self.skip(6);
                }
                (b'\\', Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't')) => {
                    self.skip(2);
                }
                (b'\\' | 0..=0x1F, _) => return false,
                _ => self.skip(1),
            }
        }
        false
    }

    fn number(&mut self) -> bool {
        self.optional(b"-");
        let whole = match self.rest.first() {
            Some(b'0') => {
                self.skip(1);
                true
            }
            _ => self.digits(),
        };
        if !whole {
            return false;
        }
        if self.optional(b".") && !self.digits() {
            return false;
        }
        if self.optional(b"eE") {
            self.optional(b"+-");
            return self.digits();
        }
        true
    }

    fn digits(&mut self) -> bool {
        let length = self
            .rest
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        self.skip(length);
        length > 0
    }

    /// One of these bytes, if it is there.
    fn optional(&mut self, bytes: &[u8]) -> bool {
        let there = self.rest.first().is_some_and(|byte| bytes.contains(byte));
        if there {
            self.skip(1);
        }
        there
    }

    fn word(&mut self, word: &[u8]) -> bool {
        let there = self.rest.starts_with(word);
        if there {
            self.skip(word.len());
        }
        there
    }

    fn token(&mut self, token: u8) -> bool {
        self.space();
        self.optional(&[token])
    }

    fn space(&mut self) {
        while self.optional(b" \t\r\n") {}
    }

    fn skip(&mut self, count: usize) {
        self.rest = self.rest.get(count..).unwrap_or_default();
    }

    fn at_end(&mut self) -> bool {
        self.space();
        self.rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_told_from_what_is_not() {
        for text in [
            "1",
            "-0.5e+3",
            "\"a\\u00e9\\n\"",
            "null",
            "true",
            "[]",
            "[1, [2]]",
            "{}",
            " {\"a\": {\"b\": [false, \"x\"]}, \"c\": 1} ",
            "\"é\"",
        ] {
            assert!(is_valid(text), "{text}");
        }
        for text in [
            "",
            "01",
            "1.",
            "-",
            "\"a",
            "\"\\x\"",
            "\"\\u12\"",
            "[1,]",
            "[1 2]",
            "{1:2}",
            "{\"a\"}",
            "nul",
            "1 2",
            "{\"a\":1,}",
            "\"\n\"",
            "1e",
        ] {
            assert!(!is_valid(text), "{text}");
        }
        assert!(!is_valid(&"[".repeat(100_000)));
    }

    #[test]
    fn strings_are_escaped() {
        let mut out = String::new();
        put_string(&mut out, "a\"\\\n\u{1}é");
        assert_eq!(out, "\"a\\\"\\\\\\n\\u0001é\"");
        assert!(is_valid(&out));
    }
}
