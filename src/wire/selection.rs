//! Selections of a property section's properties that are read later than the packet was checked.
//!
//! What a broker needs at once becomes a field of the packet; the rest ([`Forwarded`],
//! [`UserProperties`], [`SubscriptionIdentifiers`]) stays the bytes it came as: a slice of the
//! section from the selection's first member to its last one. Members of other selections may stand
//! in between, so reading one skips them: no list is built, and in the usual case, where nothing
//! stands in between, forwarding is a single copy.
//!
//! Invariant: the bytes were checked when their packet was decoded. Reading them again checks them
//! again, which costs little and means that bytes from elsewhere end an iteration instead of
//! breaking anything.

use super::properties::{Property, identifier};
use super::reader::Reader;
use super::sink::{Sink, Write};

/// A selection that is being made: where its first property begins and its last one ends, and how
/// many bytes are its own.
#[derive(Clone, Copy, Default)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) length: usize,
}

/// A selection of a section's properties: a slice from the first to the last, and how many bytes of
/// it are theirs.
#[derive(Clone, Copy, Default)]
pub(super) struct Selection<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) length: usize,
}

impl<'a> Selection<'a> {
    #[inline]
    const fn of(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            length: bytes.len(),
        }
    }

    #[inline]
    const fn is_contiguous(&self) -> bool {
        self.bytes.len() == self.length
    }

    /// The stretches of bytes that are the selection's own.
    #[inline]
    fn runs(self, belongs: fn(u8) -> bool) -> Runs<'a> {
        Runs {
            reader: Reader::new(self.bytes),
            contiguous: self.is_contiguous(),
            belongs,
        }
    }
}

struct Runs<'a> {
    reader: Reader<'a>,
    contiguous: bool,
    belongs: fn(u8) -> bool,
}

impl<'a> Runs<'a> {
    /// Passes over properties while they belong, or while they do not.
    fn skip(&mut self, belongs: bool) -> Option<()> {
        while let Some(&identifier) = self.reader.rest().first() {
            if (self.belongs)(identifier) != belongs {
                break;
            }
            Property::read(&mut self.reader).ok()?;
        }
        Some(())
    }
}

impl<'a> Iterator for Runs<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.reader.is_empty() {
            return None;
        }
        if self.contiguous {
            let whole = self.reader.rest();
            self.reader = Reader::new(&[]);
            return Some(whole);
        }
        self.skip(false)?;
        let bytes = self.reader.rest();
        self.skip(true)?;
        let run = &bytes[..bytes.len() - self.reader.rest().len()];
        if run.is_empty() { None } else { Some(run) }
    }
}

/// A selection that others see: what is in it, and what it iterates over.
macro_rules! selection {
    ($(#[$doc:meta])* $name:ident, $belongs:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default)]
        pub struct $name<'a>(Selection<'a>);

        impl<'a> $name<'a> {
            #[inline]
            pub(super) const fn new(selection: Selection<'a>) -> Self {
                Self(selection)
            }

            /// Whether there is none.
            #[must_use]
            #[inline]
            pub const fn is_empty(&self) -> bool {
                self.0.length == 0
            }

            /// Encoded bytes, without a length prefix.
            #[must_use]
            #[inline]
            pub const fn len(&self) -> usize {
                self.0.length
            }

            #[inline]
            fn runs(&self) -> Runs<'a> {
                self.0.runs($belongs)
            }

            /// The properties, in the order they came.
            fn properties(&self) -> impl Iterator<Item = Property<'a>> + use<'a> {
                let mut reader = Reader::new(self.0.bytes);
                std::iter::from_fn(move || {
                    while let Some(&identifier) = reader.rest().first() {
                        let property = Property::read(&mut reader).ok()?;
                        if ($belongs)(identifier) {
                            return Some(property);
                        }
                    }
                    None
                })
            }
        }

        impl PartialEq for $name<'_> {
            fn eq(&self, other: &Self) -> bool {
                self.len() == other.len()
                    && self.runs().flatten().eq(other.runs().flatten())
            }
        }

        impl Eq for $name<'_> {}

        impl std::fmt::Debug for $name<'_> {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.debug_list().entries(self.properties()).finish()
            }
        }

        impl Write for $name<'_> {
            #[inline]
            fn write<S: Sink>(&self, out: &mut S) {
                for run in self.runs() {
                    out.bytes(run);
                }
            }
        }
    };
}

const fn is_forwarded(identifier: u8) -> bool {
    matches!(
        identifier,
        identifier::PAYLOAD_FORMAT_INDICATOR
            | identifier::CONTENT_TYPE
            | identifier::RESPONSE_TOPIC
            | identifier::CORRELATION_DATA
            | identifier::USER_PROPERTY
    )
}

const fn is_user_property(identifier: u8) -> bool {
    identifier == identifier::USER_PROPERTY
}

const fn is_subscription_identifier(identifier: u8) -> bool {
    identifier == identifier::SUBSCRIPTION_IDENTIFIER
}

selection! {
    /// The properties of a message that a broker passes on unaltered and in order: Payload Format
    /// Indicator, Content Type, Response Topic, Correlation Data and User Properties
    /// ([MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18]
    /// [MQTT-3.3.2-20], for wills [MQTT-3.1.3-10]).
    Forwarded, is_forwarded
}

impl<'a> Forwarded<'a> {
    /// Properties that were taken out of a [`Forwarded`] before, or put together with
    /// [`Property::encode`].
    #[must_use]
    #[inline]
    pub const fn from_bytes(bytes: &'a [u8]) -> Self {
        Self(Selection::of(bytes))
    }

    /// Their bytes, if nothing else stands between them.
    #[must_use]
    #[inline]
    pub const fn as_contiguous(&self) -> Option<&'a [u8]> {
        if self.0.is_contiguous() {
            Some(self.0.bytes)
        } else {
            None
        }
    }

    /// Appends their bytes to `out`.
    #[inline]
    pub fn write_to(&self, out: &mut Vec<u8>) {
        self.write(out);
    }

    /// The properties, in the order they came.
    pub fn iter(&self) -> impl Iterator<Item = Property<'a>> + use<'a> {
        self.properties()
    }

    /// The User Properties among them.
    #[must_use]
    pub fn user_properties(&self) -> UserProperties<'a> {
        let mut selection = Selection {
            bytes: self.0.bytes,
            length: 0,
        };
        selection.length = selection.runs_length(is_user_property);
        UserProperties(selection)
    }
}

impl Selection<'_> {
    /// Bytes of the properties that belong. `length` is not known yet, so nothing is contiguous.
    fn runs_length(self, belongs: fn(u8) -> bool) -> usize {
        Runs {
            reader: Reader::new(self.bytes),
            contiguous: false,
            belongs,
        }
        .map(<[u8]>::len)
        .sum()
    }
}

selection! {
    /// The User Properties of a packet.
    UserProperties, is_user_property
}

impl<'a> UserProperties<'a> {
    /// Names and values, in the order they came; a name may come more than once.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.properties().filter_map(|property| match property {
            Property::UserProperty(name, value) => Some((name, value)),
            _ => None,
        })
    }
}

selection! {
    /// The Subscription Identifiers that a server put into a PUBLISH.
    SubscriptionIdentifiers, is_subscription_identifier
}

impl<'a> SubscriptionIdentifiers<'a> {
    /// The identifiers, in the order they came.
    pub fn iter(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.properties().filter_map(|property| match property {
            Property::SubscriptionIdentifier(identifier) => Some(identifier),
            _ => None,
        })
    }
}

/// User Properties that are being put together, to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserPropertiesBuf(Vec<u8>);

impl UserPropertiesBuf {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds one at the end.
    pub fn push(&mut self, name: &str, value: &str) {
        Property::UserProperty(name, value).write(&mut self.0);
    }

    /// Them as a packet carries them.
    #[must_use]
    pub fn as_user_properties(&self) -> UserProperties<'_> {
        UserProperties(Selection::of(&self.0))
    }
}
