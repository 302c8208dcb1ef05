//! Other programs; the error of one names it and repeats what it printed last.

use std::process::{Output, Stdio};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

/// How much of a failed program's output an error repeats.
const LINES_OF_AN_ERROR: usize = 20;

/// A command from a line of words without quotes.
pub(super) fn command(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
}

/// What the command printed, without the white space around it; an error if it failed.
pub(super) async fn output_of(command: &mut Command) -> Result<String> {
    let output = finish(command).await?;
    if !output.status.success() {
        let name = command.as_std().get_program().to_string_lossy();
        let arguments: Vec<_> =
            command.as_std().get_args().map(|argument| argument.to_string_lossy()).collect();
        bail!(
            "`{name} {}` failed ({}):\n{}",
            arguments.join(" "),
            output.status,
            last_lines(&output)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// What the command printed, if it exists and succeeds.
pub(super) async fn output_if_ok(command: &mut Command) -> Option<String> {
    output_of(command).await.ok()
}

async fn finish(command: &mut Command) -> Result<Output> {
    // A command that is dropped before it ends belongs to a run that was interrupted, and must not
    // go on during the clean-up.
    command.stdin(Stdio::null()).kill_on_drop(true);
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    command.output().await.with_context(|| format!("cannot run {name}"))
}

fn last_lines(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text);
    let skipped = text.lines().count().saturating_sub(LINES_OF_AN_ERROR);
    text.lines().skip(skipped).collect::<Vec<_>>().join("\n")
}
