//! Logs: lines on standard error, as much as the configuration, the command line or `SHARDMQ_LOG`
//! ask for.

use std::io::{self, IsTerminal};

use shardmq::config::{Log, LogFormat, LogLevel};
use tracing_subscriber::EnvFilter;

use super::args::RunArgs;

/// The variable that holds a filter.
const VARIABLE: &str = "SHARDMQ_LOG";

/// Starts to log.
pub(super) fn start(log: &Log, args: &RunArgs) -> Result<(), String> {
    let filter = filter(log, args, std::env::var(VARIABLE).ok().as_deref())?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let result = match log.format {
        LogFormat::Full => subscriber.try_init(),
        LogFormat::Compact => subscriber.compact().with_target(false).try_init(),
    };
    result.map_err(|error| format!("cannot start to log: {error}"))
}

fn filter(log: &Log, args: &RunArgs, variable: Option<&str>) -> Result<EnvFilter, String> {
    let text = match variable.filter(|text| !text.is_empty()) {
        Some(text) => text,
        None => level(log, args),
    };
    EnvFilter::try_new(text).map_err(|error| {
        format!("{VARIABLE}={text}: {error}; it looks like `info` or `info,shardmq::shard=debug`")
    })
}

fn level(log: &Log, args: &RunArgs) -> &'static str {
    match (args.quiet, args.verbose) {
        (true, _) => "error",
        (false, 0) => match log.level {
            LogLevel::Off => "off",
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        },
        (false, 1) => "debug",
        (false, _) => "trace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_goes_over_the_command_line_and_that_over_the_file() {
        let log = Log {
            level: LogLevel::Warn,
            ..Log::default()
        };
        let shown = |args: &RunArgs, variable| filter(&log, args, variable).unwrap().to_string();
        assert_eq!(shown(&RunArgs::default(), None), "warn");
        assert_eq!(
            shown(
                &RunArgs {
                    verbose: 1,
                    ..RunArgs::default()
                },
                None
            ),
            "debug"
        );
        assert_eq!(
            shown(
                &RunArgs {
                    quiet: true,
                    ..RunArgs::default()
                },
                None
            ),
            "error"
        );
        assert_eq!(
            shown(
                &RunArgs {
                    verbose: 2,
                    ..RunArgs::default()
                },
                Some("info")
            ),
            "info"
        );
        assert_eq!(shown(&RunArgs::default(), Some("")), "warn");
    }

    #[test]
    fn a_filter_that_is_none_is_refused() {
        let error = filter(&Log::default(), &RunArgs::default(), Some("a=b=c")).unwrap_err();
        assert!(error.starts_with("SHARDMQ_LOG=a=b=c: "), "{error}");
    }
}
