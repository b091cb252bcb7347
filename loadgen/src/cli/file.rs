//! Scenarios in files: lines of `flag = value`, which flags of the command line override.

use std::path::Path;

use clap::{ArgAction, CommandFactory, FromArgMatches};

use super::args::{Cli, Command, Load};

/// The scenario's name and its flags, if `name` is a file; otherwise what was given.
pub(super) fn read(name: &str, load: &Load) -> Result<(String, Load), String> {
    let path = Path::new(name);
    if !path.is_file() {
        return Ok((name.to_owned(), load.clone()));
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
    let (scenario, flags) = parse(&text).map_err(|(at, what)| format!("{name}:{at}: {what}"))?;
    let scenario = scenario.ok_or_else(|| format!("{name}: a line scenario = NAME is missing"))?;
    // Later flags override earlier ones: the command line comes last.
    let before = std::env::args().skip(2);
    let before = before.take_while(|argument| argument != name);
    let after = std::env::args().skip_while(|argument| argument != name);
    let all = ["shardmq-loadgen", "run", &scenario]
        .map(str::to_owned)
        .into_iter()
        .chain(flags)
        .chain(before)
        .chain(after.skip(1));
    let matches = Cli::command()
        .args_override_self(true)
        .try_get_matches_from(all);
    let cli = matches.and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = cli.map_err(|error| {
        // What clap says begins with "error: ", as does what is made of this.
        let text = error.to_string();
        format!("{name}: {}", text.trim_start_matches("error: "))
    })?;
    match cli.command {
        Some(Command::Run { load, .. }) => Ok((scenario, *load)),
        _ => Err(format!("{name}: not a scenario")),
    }
}

/// The scenario and the flags of a file, or the line and what is wrong with it.
fn parse(text: &str) -> Result<(Option<String>, Vec<String>), (usize, String)> {
    let command = Cli::command();
    let run = command.find_subcommand("run");
    let mut scenario = None;
    let mut flags = Vec::new();
    for (line, at) in text.lines().zip(1..) {
        // A topic filter may have one too: a comment's stands at the beginning or behind a space.
        let line = line.split(" #").next().unwrap_or_default().trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line
            .split_once('=')
            .ok_or_else(|| (at, format!("expected flag = value, not {line:?}")))?;
        let (key, value) = (key.trim(), value.trim().trim_matches('"'));
        if key == "scenario" {
            scenario = Some(value.to_owned());
            continue;
        }
        let argument = run
            .and_then(|run| {
                run.get_arguments()
                    .find(|argument| argument.get_long() == Some(key))
            })
            .ok_or_else(|| (at, format!("there is no flag --{key}")))?;
        if !matches!(argument.get_action(), ArgAction::SetTrue) {
            flags.push(format!("--{key}={value}"));
            continue;
        }
        match value {
            "true" => flags.push(format!("--{key}")),
            "false" => {}
            _ => return Err((at, format!("{key} is true or false, not {value:?}"))),
        }
    }
    Ok((scenario, flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_flags() {
        let text = "# of a test\nscenario = p2p\nrate = 4k # per second\nclean = false\n\
                    reconnect = true\nclosed-loop = false\ntopic = \"a/#\"\n";
        let flags = ["--rate=4k", "--clean=false", "--reconnect", "--topic=a/#"];
        let expected = (Some("p2p".to_owned()), flags.map(str::to_owned).to_vec());
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, at, part) in [
            ("scenario = p2p\nrates = 1", 2, "no flag --rates"),
            ("\n\nrate 1", 3, "flag = value"),
            ("reconnect = maybe", 1, "true or false"),
        ] {
            let (line, what) = parse(text).unwrap_err();
            assert_eq!(line, at);
            assert!(what.contains(part), "{what}");
        }
    }
}
