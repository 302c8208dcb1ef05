//! What a child process writes to its output, kept so that tests can wait for it and errors can
//! quote it.

use std::collections::VecDeque;
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::patience::patiently;

/// The oldest lines are dropped beyond this: a benchmark may write access logs for a long time.
const LINES: usize = 50_000;

/// The lines of stdout and stderr, in the order in which they arrived.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    lines: Arc<watch::Sender<Lines>>,
}

/// A position in the log: the number of lines before it. The default is its beginning.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark(usize);

#[derive(Debug, Default)]
struct Lines {
    dropped: usize,
    kept: VecDeque<String>,
}

impl Lines {
    fn since(&self, mark: Mark) -> impl Iterator<Item = &String> {
        self.kept.iter().skip(mark.0.saturating_sub(self.dropped))
    }

    fn line_with(&self, text: &str, mark: Mark) -> Option<&String> {
        self.since(mark).find(|line| line.contains(text))
    }

    fn end(&self) -> Mark {
        Mark(self.dropped + self.kept.len())
    }
}

impl Log {
    /// Reads lines until the process closes this output. A line need not be UTF-8: access logs
    /// print what clients sent.
    pub(super) fn capture(
        &self,
        output: impl AsyncRead + Send + Unpin + 'static,
    ) -> JoinHandle<()> {
        let log = self.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).split(b'\n');
            while let Ok(Some(line)) = lines.next_segment().await {
                log.push(String::from_utf8_lossy(&line).into_owned());
            }
        })
    }

    fn push(&self, line: String) {
        self.lines.send_modify(|lines| {
            if lines.kept.len() == LINES {
                lines.kept.pop_front();
                lines.dropped += 1;
            }
            lines.kept.push_back(line);
        });
    }

    /// The end of the log as it is now.
    pub(super) fn mark(&self) -> Mark {
        self.lines.borrow().end()
    }

    pub(super) fn since(&self, mark: Mark) -> Vec<String> {
        self.lines.borrow().since(mark).cloned().collect()
    }

    pub(super) fn follow(&self) -> LogLines {
        LogLines { lines: self.lines.subscribe(), mark: self.mark() }
    }

    /// Waits for a line after the mark that contains the text; one that is already there counts.
    pub(super) async fn wait_for(&self, text: &str, mark: Mark) -> Result<String> {
        patiently(&format!("waiting for a log line with {text:?}"), async {
            let mut lines = self.lines.subscribe();
            let lines = lines.wait_for(|lines| lines.line_with(text, mark).is_some());
            let lines = lines.await.context("the log is closed")?;
            lines.line_with(text, mark).cloned().context("the line is gone")
        })
        .await
    }
}

/// A log as it grows.
pub struct LogLines {
    lines: watch::Receiver<Lines>,
    mark: Mark,
}

impl LogLines {
    /// The lines since the last call, at least one; `None` when there will be no more. Nothing is
    /// lost if the future is dropped before it is done.
    pub async fn next(&mut self) -> Option<Vec<String>> {
        let mark = self.mark;
        let lines = self.lines.wait_for(|lines| lines.end().0 > mark.0).await.ok()?;
        self.mark = lines.end();
        Some(lines.since(mark).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_kept_even_if_they_are_not_utf8() {
        let log = Log::default();
        log.capture(&b"first\nsec\xffond\nlast"[..]).await.unwrap();
        assert_eq!(log.since(Mark::default()), ["first", "sec\u{fffd}ond", "last"]);
        assert_eq!(log.wait_for("ond", Mark::default()).await.unwrap(), "sec\u{fffd}ond");
    }

    #[tokio::test]
    async fn a_line_that_comes_later_is_waited_for() {
        let log = Log::default();
        let later = tokio::spawn({
            let log = log.clone();
            async move { log.wait_for("ready", Mark::default()).await }
        });
        tokio::task::yield_now().await;
        log.push("starting".to_owned());
        log.push("now ready".to_owned());
        assert_eq!(later.await.unwrap().unwrap(), "now ready");
    }

    #[tokio::test]
    async fn a_log_is_followed_to_its_end() {
        let log = Log::default();
        log.push("before".to_owned());
        let mut lines = log.follow();
        log.push("after".to_owned());
        log.push("later".to_owned());
        assert_eq!(lines.next().await.unwrap(), ["after", "later"]);
        log.push("at last".to_owned());
        assert_eq!(lines.next().await.unwrap(), ["at last"]);
        drop(log);
        assert_eq!(lines.next().await, None);
    }

    #[test]
    fn only_the_newest_lines_are_kept() {
        let log = Log::default();
        (0..=LINES).for_each(|number| log.push(number.to_string()));
        let lines = log.since(Mark::default());
        assert_eq!((lines.len(), lines[0].as_str()), (LINES, "1"));
        assert_eq!(log.since(Mark(LINES)), [LINES.to_string()]);
        assert!(log.since(log.mark()).is_empty());
    }
}
