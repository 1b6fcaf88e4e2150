//! `settings.md`: every setting of every command, and the commands.

use std::fmt::Write;

use clap::{Arg, Command, CommandFactory};
use usher::cli::CommandLine;

use super::cell;

const INTRODUCTION: &str = "# Settings

Each setting is an environment variable and a flag; the flag has precedence. An empty value counts
as unset. All invalid settings are reported at once, by name, before anything starts. `usher config
check` prints the effective settings without secrets. A dash means that there is no default.
";

/// A command with its full name.
fn commands(command: &Command, path: &str, found: &mut Vec<(String, Command)>) {
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let path = format!("{path} {}", sub.get_name());
        if sub.get_subcommands().next().is_none() || sub.is_args_conflicts_with_subcommands_set() {
            found.push((path.clone(), sub.clone()));
        }
        commands(sub, &path, found);
    }
}

fn variable(argument: &Arg) -> Option<&str> {
    argument.get_env()?.to_str()
}

/// The help text without its default, and the default.
fn help(argument: &Arg) -> (String, Option<String>) {
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    if let Some((text, default)) = help.split_once(" [default: ") {
        return (text.to_owned(), default.strip_suffix(']').map(str::to_owned));
    }
    let default = argument.get_default_values().first().and_then(|value| value.to_str());
    (help, default.map(str::to_owned))
}

fn value(argument: &Arg) -> String {
    argument
        .get_value_names()
        .and_then(|names| names.first())
        .map(ToString::to_string)
        .unwrap_or_default()
}

/// `--flag VALUE` or `VALUE`, as a command takes it.
fn usage(argument: &Arg) -> String {
    let takes = argument.get_action().takes_values();
    match argument.get_long() {
        Some(long) if takes => format!("[--{long} {}]", value(argument)),
        Some(long) => format!("[--{long}]"),
        None => format!("<{}>", value(argument)),
    }
}

pub(super) fn page() -> String {
    let root = CommandLine::command();
    let mut all = Vec::new();
    commands(&root, "usher", &mut all);
    let mut page = INTRODUCTION.to_owned();
    let find = |name: &str| &all.iter().find(|(path, _)| path == name).unwrap().1;
    let serve = find("usher serve");
    let heads = "\n| environment, flag | value | default | |\n|:--|:--|:--|:--|\n";
    write!(page, "\n## `usher serve`\n{heads}").unwrap();
    let mut known = Vec::new();
    let mut rows = |page: &mut String, command: &Command| {
        for argument in command.get_arguments() {
            let Some(name) = variable(argument).filter(|name| !known.contains(&(*name).to_owned()))
            else {
                continue;
            };
            known.push(name.to_owned());
            let (help, default) = help(argument);
            let default = default.map_or_else(|| "–".to_owned(), |default| format!("`{default}`"));
            let (flag, value, help) =
                (argument.get_long().unwrap(), cell(&value(argument)), cell(&help));
            writeln!(page, "| `{name}`, `--{flag}` | {value} | {default} | {help} |").unwrap();
        }
    };
    rows(&mut page, serve);
    write!(page, "\n## `usher dev`\n\nThe listeners and bounds of `usher serve`, and:\n{heads}")
        .unwrap();
    rows(&mut page, find("usher dev"));
    write!(page, "\n## Other commands, and all of them\n{heads}").unwrap();
    for (path, command) in &all {
        if !["usher serve", "usher dev"].contains(&path.as_str()) {
            rows(&mut page, command);
        }
    }
    rows(&mut page, &root);
    page.push_str(
        "| `RUST_LOG` | FILTER | `info` | Levels of the log, as in `usher=debug,info` |\n",
    );
    page.push_str("\n## Commands\n\n| command | takes the settings | |\n|:--|:--|:--|\n");
    for (path, command) in &all {
        let own: Vec<_> = command
            .get_arguments()
            .filter(|it| variable(it).is_none() && it.get_id() != "help")
            .collect();
        let line =
            own.iter().fold(path.clone(), |line, argument| format!("{line} {}", usage(argument)));
        let names: Vec<_> = command.get_arguments().filter_map(variable).collect();
        let settings = match names.as_slice() {
            [] => "none".to_owned(),
            names if names.len() < 4 => {
                names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
            }
            names if names.contains(&"USHER_DATA_DIR") => {
                "listeners, bounds, `USHER_DATA_DIR`".to_owned()
            }
            names if names.contains(&"USHER_LISTEN") => "all of `usher serve`".to_owned(),
            _ => "Redis and MySQL".to_owned(),
        };
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let own =
            own.iter().filter_map(|it| Some(format!("`--{}`: {}", it.get_long()?, it.get_help()?)));
        let about = own.fold(about, |about, own| format!("{about}. {own}"));
        writeln!(page, "| `{}` | {settings} | {} |", cell(&line), cell(&about)).unwrap();
    }
    page
}
