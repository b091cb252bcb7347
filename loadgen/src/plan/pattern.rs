//! Topics with places to fill in.

/// A topic name or filter in which `%i` is a number, `%c` the client identifier and `%u` the user
/// name, as emqtt-bench has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// From its text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Its text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Whether two clients have two topics.
    #[must_use]
    pub fn is_by_client(&self) -> bool {
        self.0.contains("%i") || self.0.contains("%c")
    }

    /// With everything filled in.
    #[must_use]
    pub fn fill(&self, number: u32, client_id: &str, user: &str) -> String {
        let mut text = String::with_capacity(self.0.len() + 8);
        let mut rest = self.0.as_str();
        while let Some(at) = rest.find('%') {
            text.push_str(&rest[..at]);
            let (filled, used) = match rest.as_bytes().get(at + 1) {
                Some(b'i') => (number.to_string(), 2),
                Some(b'c') => (client_id.to_owned(), 2),
                Some(b'u') => (user.to_owned(), 2),
                _ => ("%".to_owned(), 1),
            };
            text.push_str(&filled);
            rest = &rest[at + used..];
        }
        text.push_str(rest);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_and_other_percent_signs_stay() {
        let pattern = Pattern::new("a/%i/%c/%u/100%/%x");
        assert_eq!(pattern.fill(7, "id", "me"), "a/7/id/me/100%/%x");
        assert!(pattern.is_by_client());
        assert!(!Pattern::new("a/%u").is_by_client());
        assert_eq!(Pattern::new("%").fill(1, "", ""), "%");
    }
}
