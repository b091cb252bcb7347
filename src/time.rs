//! Time as the core is given it: a point on the shard's monotonic clock, never read here.

/// Microseconds on a clock that never goes back. Zero is the start of the process (or of a
/// simulation), so a `Time` means nothing to another machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// Where the clock starts.
    pub const ZERO: Self = Self(0);
    /// Later than anything: what never happens.
    pub const NEVER: Self = Self(u64::MAX);

    /// The point `microseconds` after [`Time::ZERO`].
    #[must_use]
    pub const fn from_micros(microseconds: u64) -> Self {
        Self(microseconds)
    }

    /// The point `milliseconds` after [`Time::ZERO`].
    #[must_use]
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(milliseconds.saturating_mul(1_000))
    }

    /// The point `seconds` after [`Time::ZERO`].
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000_000))
    }

    /// Microseconds since [`Time::ZERO`].
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Whole seconds since [`Time::ZERO`].
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000
    }

    /// `seconds` later; [`Time::NEVER`] stays what it is.
    #[must_use]
    pub const fn plus_secs(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }

    /// `milliseconds` later.
    #[must_use]
    pub const fn plus_millis(self, milliseconds: u64) -> Self {
        Self(self.0.saturating_add(milliseconds.saturating_mul(1_000)))
    }

    /// `microseconds` later.
    #[must_use]
    pub const fn plus_micros(self, microseconds: u64) -> Self {
        Self(self.0.saturating_add(microseconds))
    }

    /// Microseconds from `earlier` to here, zero if it is not earlier.
    #[must_use]
    pub const fn micros_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
