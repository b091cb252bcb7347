//! How fast connections are let in: so many a second for each listener, and for each address that they come
//! from. All shards share it, since the kernel spreads the connections of one address over them; it is
//! asked once for each connection, not more.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use crate::limits::MAX_STRIKES;
use crate::time::Time;

/// What a connection costs, in microseconds, at `rate` a second.
const fn cost(rate: u32) -> u64 {
    match rate {
        0 => 0,
        rate => 1_000_000 / rate as u64,
    }
}

/// Microseconds that connections may be ahead of their rate.
const BURST_US: u64 = 1_000_000;

/// Lets connections in, or not.
#[derive(Debug, Default)]
pub(super) struct Gate {
    listener_cost: u64,
    address_cost: u64,
    state: Mutex<State>,
}

/// For each, the time at which what came so far would have come at its rate.
#[derive(Debug, Default)]
struct State {
    listeners: HashMap<u16, Time>,
    addresses: HashMap<IpAddr, Time>,
}

impl Gate {
    /// So many a second for each listener, and for each address; 0 for no bound.
    pub(super) fn new((per_listener, per_address): (u32, u32)) -> Self {
        Self {
            listener_cost: cost(per_listener),
            address_cost: cost(per_address),
            state: Mutex::default(),
        }
    }

    /// Whether a connection may come in.
    pub(super) fn admits(&self, listener: u16, address: IpAddr, now: Time) -> bool {
        if self.listener_cost == 0 && self.address_cost == 0 {
            return true;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State {
            listeners,
            addresses,
        } = &mut *state;
        if addresses.len() >= MAX_STRIKES {
            addresses.retain(|_, paid_until| *paid_until > now);
            if addresses.len() >= MAX_STRIKES {
                addresses.clear(); // whoever commands so many addresses is not stopped by their rates
            }
        }
        let is_late = |paid_until: Option<&Time>, cost: u64| {
            cost > 0 && paid_until.is_some_and(|until| until.micros_since(now) + cost > BURST_US)
        };
        // What is turned away costs nothing, or nobody would ever come in again.
        if is_late(listeners.get(&listener), self.listener_cost)
            || is_late(addresses.get(&address), self.address_cost)
        {
            return false;
        }
        if self.listener_cost > 0 {
            let paid = listeners.entry(listener).or_insert(now);
            *paid = (*paid).max(now).plus_micros(self.listener_cost);
        }
        if self.address_cost > 0 {
            let paid = addresses.entry(address).or_insert(now);
            *paid = (*paid).max(now).plus_micros(self.address_cost);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(gate: &Gate, listener: u16, last: u8, now: Time) -> usize {
        let address = IpAddr::from([127, 0, 0, last]);
        (0..100)
            .filter(|_| gate.admits(listener, address, now))
            .count()
    }

    #[test]
    fn so_many_a_second_come_in() {
        let gate = Gate::new((20, 5));
        let at = Time::from_millis;
        assert_eq!(admitted(&gate, 0, 1, at(0)), 5);
        assert_eq!(admitted(&gate, 0, 2, at(0)), 5);
        assert_eq!(admitted(&gate, 0, 1, at(400)), 2);
        assert_eq!(admitted(&gate, 0, 1, at(10_000)), 5);
        let many: usize = (3..20)
            .map(|last| admitted(&gate, 0, last, at(10_000)))
            .sum();
        assert_eq!(many, 15, "the listener has had its 20");
        assert_eq!(
            admitted(&gate, 1, 20, at(10_000)),
            5,
            "another one has its own"
        );
        assert_eq!(admitted(&Gate::new((0, 0)), 0, 1, at(0)), 100);
    }
}
