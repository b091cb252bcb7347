//! `shardmq doctor`: what of this machine stands in the way of many clients, why, and the command that
//! changes it. It reads and never changes anything.
//!
//! `machine` reads facts, below a root that a test chooses; `limits`, `network` and `processor` judge
//! them without looking at anything else. `tuning.md` names the same checks.

mod check;
mod limits;
mod machine;
mod network;
mod processor;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use shardmq::config::Config;
use shardmq::runtime::net;

use self::check::{Check, Level, Plan};
use self::machine::{DriverFacts, Machine};
use super::{fail, load, print};

/// Version of the JSON. What is there stays; new keys and checks may come without a new number.
const FORMAT: u32 = 1;

#[derive(Args, Debug)]
pub(super) struct DoctorArgs {
    /// Configuration file of the broker that is to run here
    #[arg(short, long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// Connections that the machine is to carry
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    connections: u64,
    /// Write JSON, with a number of its format
    #[arg(long)]
    json: bool,
}

/// Examines this machine. Exit code 1 says that there are problems.
pub(super) fn run(args: &DoctorArgs) -> ExitCode {
    let config = match load::config(args.config.as_deref()) {
        Ok(config) => config,
        Err(error) => return fail(error),
    };
    // Before the driver is tried: that raises limits as far as it may.
    let mut machine = Machine::read(Path::new("/"));
    let plan = plan(&config, args.connections, &machine);
    machine.driver = Some(driver(&config, plan.shards));
    let checks = examine(&machine, &plan);
    let text = if args.json {
        format!("{:#}\n", as_json(&checks, &plan))
    } else {
        as_text(&checks, &plan)
    };
    let printed = print(text.as_bytes());
    match worst(&checks) {
        Level::Problem => ExitCode::FAILURE,
        Level::Ok | Level::Advice => printed,
    }
}

/// What the machine is to carry.
fn plan(config: &Config, connections: u64, machine: &Machine) -> Plan {
    let shards = match config.shards {
        0 => machine
            .cpus_allowed
            .as_ref()
            .map_or(1, BTreeSet::len)
            .max(1),
        shards => shards,
    };
    let mut ports: Vec<u16> = config
        .listeners
        .iter()
        .flat_map(|listener| listener.bind.iter().map(std::net::SocketAddr::port))
        .collect();
    ports.extend(config.http.bind.map(|bind| bind.port()));
    Plan {
        connections,
        shards,
        backlog: u64::from(config.net.backlog),
        ports,
    }
}

/// Which driver the broker would use.
fn driver(config: &Config, shards: usize) -> DriverFacts {
    match net::choose(config.net.driver, shards) {
        Ok(chosen) => DriverFacts::Works {
            text: chosen.to_string(),
            fallback: chosen.fallback().map(ToString::to_string),
        },
        Err(error) => DriverFacts::Fails(error.to_string()),
    }
}

/// All checks, in the order of `tuning.md`.
fn examine(machine: &Machine, plan: &Plan) -> Vec<Check> {
    let mut checks = limits::checks(machine, plan);
    checks.extend(network::checks(machine, plan));
    checks.extend(processor::checks(machine, plan));
    checks
}

fn worst(checks: &[Check]) -> Level {
    let levels = checks.iter().map(|check| check.level);
    levels.max().unwrap_or(Level::Ok)
}

fn as_text(checks: &[Check], plan: &Plan) -> String {
    let mut text = format!(
        "For {} connections on {} shard(s); nothing is changed by this.\n\n",
        plan.connections, plan.shards
    );
    for check in checks {
        let _ = writeln!(
            text,
            "{:<8} {:<22} {}",
            check.level.name(),
            check.name,
            check.found
        );
        if check.level == Level::Ok {
            continue;
        }
        let mut line = |name: &str, content: &str| {
            let _ = writeln!(text, "         {name:<7} {content}");
        };
        line("wanted:", &check.wanted);
        line("why:", check.why);
        if let Some(fix) = &check.fix {
            line("fix:", fix);
        }
        if let Some(undo) = &check.undo {
            line("undo:", undo);
        }
    }
    let count = |level| checks.iter().filter(|check| check.level == level).count();
    let _ = writeln!(
        text,
        "\n{} fine, {} to consider, {} to solve. tuning.md explains each.",
        count(Level::Ok),
        count(Level::Advice),
        count(Level::Problem)
    );
    text
}

fn as_json(checks: &[Check], plan: &Plan) -> Value {
    let list: Vec<Value> = checks
        .iter()
        .map(|check| {
            json!({
                "name": check.name,
                "level": check.level.name(),
                "found": check.found,
                "wanted": check.wanted,
                "why": check.why,
                "fix": check.fix,
                "undo": check.undo,
            })
        })
        .collect();
    json!({
        "format": FORMAT,
        "version": env!("CARGO_PKG_VERSION"),
        "connections": plan.connections,
        "shards": plan.shards,
        "level": worst(checks).name(),
        "checks": list,
    })
}
