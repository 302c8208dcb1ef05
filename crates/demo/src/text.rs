//! Text of the kinds that fill real prompts: guidelines, source files, output of commands.
//!
//! It means nothing, but it is as long as the real thing, never the same twice in a run, and the
//! same in every run: the numbers of the demo must not depend on chance.

/// Four bytes are one token, as the simulated providers count.
const BYTES_PER_TOKEN: usize = 4;

/// A generator of numbers that look random (SplitMix64). Equal seeds give equal numbers.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below the bound, which must not be 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) % bound as u64) as usize
    }

    /// One of the words.
    pub(super) fn pick(&mut self, words: &[&'static str]) -> &'static str {
        let index = self.below(words.len());
        words.get(index).copied().unwrap_or_default()
    }
}

/// Rules of work for an agent, as in a system prompt or in the description of a tool.
pub(super) fn guidelines(random: &mut Random, tokens: usize) -> String {
    lines(tokens, || {
        let (when, what, why) =
            (random.pick(&OCCASIONS), random.pick(&RULES), random.pick(&REASONS));
        format!("- {when}, {what}, {why}.")
    })
}

/// A question about code.
pub(super) fn question(random: &mut Random) -> String {
    let (task, noun, verb) = (random.pick(&TASKS), random.pick(&NOUNS), random.pick(&VERBS));
    format!("{task} `{verb}_{noun}`.")
}

/// A source file or the output of a command.
pub(super) fn attachment(random: &mut Random, tokens: usize) -> String {
    match random.below(3) {
        0 => test_output(random, tokens),
        _ => source_file(random, tokens),
    }
}

fn source_file(random: &mut Random, tokens: usize) -> String {
    let (noun, mut number) = (random.pick(&NOUNS), 0);
    let text = lines(tokens, || {
        number += 1;
        let (verb, left, right) = (random.pick(&VERBS), random.pick(&NOUNS), random.pick(&NOUNS));
        match random.below(4) {
            0 => format!(
                "{number:>6}  pub fn {verb}_{left}({right}: &{right}::Id) -> Result<(), Error> {{"
            ),
            1 => {
                format!("{number:>6}      let {left} = {right}.{verb}({})?;", random.below(10_000))
            }
            2 => format!(
                "{number:>6}      if {left}.{verb}_{right}() {{ return Err(Error::{verb}({left})); }}"
            ),
            _ => format!(
                "{number:>6}      // {left} and {right} are {verb}ed together, see ADR {}",
                random.below(400)
            ),
        }
    });
    format!("Contents of src/{noun}.rs:\n{text}")
}

fn test_output(random: &mut Random, tokens: usize) -> String {
    let text = lines(tokens, || {
        let (verb, left, right) = (random.pick(&VERBS), random.pick(&NOUNS), random.pick(&NOUNS));
        let result = if random.below(12) == 0 { "FAILED" } else { "ok" };
        format!(
            "test {left}::tests::{verb}s_the_{right}_of_order_{} ... {result}",
            random.below(100_000)
        )
    });
    format!("$ cargo test\n{text}")
}

/// Lines until the text has about this many tokens.
fn lines(tokens: usize, mut line: impl FnMut() -> String) -> String {
    let mut text = String::with_capacity(tokens * BYTES_PER_TOKEN + 100);
    while text.len() < tokens * BYTES_PER_TOKEN {
        text.push_str(&line());
        text.push('\n');
    }
    text
}

const OCCASIONS: [&str; 8] = [
    "Before you change a file",
    "When a command fails",
    "If the user asks for a plan",
    "After every edit",
    "When two sources disagree",
    "If a test is flaky",
    "Before you delete anything",
    "When the task is finished",
];
const RULES: [&str; 8] = [
    "read the whole function and its callers",
    "run the smallest test that covers it",
    "say in one sentence what you are about to do",
    "prefer the way that is already used in this repository",
    "ask once and then decide",
    "keep the change as small as the problem",
    "show the exact output instead of a summary",
    "leave generated files alone",
];
const REASONS: [&str; 8] = [
    "because the reader has not seen what you have seen",
    "because a wrong guess costs more than a question",
    "unless the user has said otherwise in this conversation",
    "even if it takes another step",
    "since later steps rely on it",
    "so that the change can be reviewed in a minute",
    "as the history of the project shows",
    "and mention it in the final answer",
];
const TASKS: [&str; 6] = [
    "Find out why the nightly build fails in",
    "Make this faster without changing what it does:",
    "Explain what happens on a timeout in",
    "Write the missing test for",
    "Now look at",
    "Review this, above all",
];
const VERBS: [&str; 10] =
    ["load", "settle", "cancel", "merge", "retry", "parse", "charge", "ship", "audit", "refund"];
const NOUNS: [&str; 12] = [
    "order", "invoice", "basket", "customer", "payment", "parcel", "voucher", "stock", "price",
    "session", "ledger", "address",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_texts_of_about_the_given_length() {
        let [one, again, other] = [1, 1, 2].map(|seed| attachment(&mut Random::new(seed), 1000));
        assert_eq!(one, again);
        assert_ne!(one, other);
        assert!((4000..4300).contains(&one.len()), "{}", one.len());
    }
}
