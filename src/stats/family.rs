//! What a counter is called, what it means and how it is added up: declared once, with [`measured`].
//!
//! A struct that the macro writes has a field for each counter, its sum over shards, its list of
//! [`Family`]s and its values in the order of that list. So a counter that is declared is added,
//! exposed and documented, and none of these can be forgotten or disagree.

use super::Histogram;

/// What a number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows while the broker runs.
    Counter,
    /// It is as it is now.
    Gauge,
    /// A counter of microseconds, shown in seconds.
    Seconds,
    /// A distribution of microseconds, shown in seconds.
    Histogram,
}

impl Kind {
    /// Its name in the text format of Prometheus.
    #[must_use]
    pub const fn type_name(self) -> &'static str {
        match self {
            Self::Counter | Self::Seconds => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A label that tells the numbers of a family apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values, in the order of the numbers.
    pub values: &'static [&'static str],
}

/// One counter as the world sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Its name, stable, with its base unit and `_total` where it only grows.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it is split by.
    pub label: Option<Label>,
    /// What it counts: the lines of its documentation.
    pub help: &'static [&'static str],
}

impl Family {
    /// The documentation in one line.
    #[must_use]
    pub fn help_line(&self) -> String {
        let lines: Vec<&str> = self.help.iter().map(|line| line.trim()).collect();
        lines.join(" ")
    }
}

/// The numbers of a family.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// One number, or one for each value of the label.
    Numbers(&'a [u64]),
    /// A distribution.
    Histogram(&'a Histogram),
}

/// What a declared field can be.
pub trait Measured {
    /// Adds what another shard has counted.
    fn add(&mut self, other: &Self);
    /// Its numbers.
    fn value(&self) -> Value<'_>;
}

impl Measured for u64 {
    fn add(&mut self, other: &Self) {
        *self += other;
    }

    fn value(&self) -> Value<'_> {
        Value::Numbers(std::slice::from_ref(self))
    }
}

impl<const N: usize> Measured for [u64; N] {
    fn add(&mut self, other: &Self) {
        for (sum, part) in self.iter_mut().zip(other) {
            *sum += part;
        }
    }

    fn value(&self) -> Value<'_> {
        Value::Numbers(self)
    }
}

impl Measured for Histogram {
    fn add(&mut self, other: &Self) {
        self.merge(other);
    }

    fn value(&self) -> Value<'_> {
        Value::Histogram(self)
    }
}

/// Declares counters. `field: type = Kind "name" by "label" in VALUES;` with the documentation that
/// is its help; the name without `shardmq_`.
macro_rules! measured {
    (
        $(#[doc = $about:literal])+
        $vis:vis struct $name:ident {
            $(
                $(#[doc = $doc:literal])+
                $field:ident: $type:ty = $kind:ident $metric:literal
                    $(by $label:literal in $values:expr)?;
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        $vis struct $name {
            $($(#[doc = $doc])+ $vis $field: $type,)+
        }

        impl $name {
            /// What its fields are called and mean.
            $vis const FAMILIES: &'static [$crate::stats::Family] = &[
                $($crate::stats::Family {
                    name: concat!("shardmq_", $metric),
                    kind: $crate::stats::Kind::$kind,
                    label: $crate::stats::label(&[
                        $($crate::stats::Label { name: $label, values: &$values })?
                    ]),
                    help: &[$($doc),+],
                },)+
            ];

            /// Adds what another shard has counted.
            $vis fn add(&mut self, other: &Self) {
                $($crate::stats::Measured::add(&mut self.$field, &other.$field);)+
            }

            /// Its numbers, in the order of its families.
            #[must_use]
            $vis fn values(&self) -> Vec<$crate::stats::Value<'_>> {
                vec![$($crate::stats::Measured::value(&self.$field)),+]
            }
        }
    };
}
pub(crate) use measured;

/// The label that was written, if one was.
pub(crate) const fn label(written: &'static [Label]) -> Option<Label> {
    match written {
        [label, ..] => Some(*label),
        [] => None,
    }
}
