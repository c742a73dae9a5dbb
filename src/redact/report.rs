//! What was taken out of each connection, in numbers alone.

use std::{
    collections::HashMap,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{Counts, Kind, Redaction};
use crate::{spool::Spool, untrusted::escape_json};

/// How many bytes of lines wait in memory.
const MAX_HELD: usize = 4 << 20;

/// Collects lines from all threads, and gives them out in the order of the inputs.
#[derive(Debug)]
pub struct Report {
    /// Where it is to be written.
    pub path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The places of the inputs, and how many connections each has had.
    inputs: HashMap<String, (u64, u64)>,
    lines: Spool,
    connections: u64,
    totals: Counts,
    failed: Option<io::Error>,
}

impl Report {
    pub(crate) fn new(path: PathBuf) -> Self {
        let state = State {
            inputs: HashMap::new(),
            lines: Spool::new(MAX_HELD),
            connections: 0,
            totals: Counts::default(),
            failed: None,
        };
        Self { path, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says in which order the inputs come. One that was not named here comes after those that were.
    pub(crate) fn expect<'a>(&self, inputs: impl IntoIterator<Item = &'a Path>) {
        let mut state = self.lock();
        for input in inputs {
            state.place(&input.display().to_string());
        }
    }

    /// Passes the lines on, in their order.
    ///
    /// # Errors
    /// Lines could not be kept in a temporary file or read from it, or `each` has failed.
    pub(crate) fn finish(&self, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut state = self.lock();
        if let Some(error) = state.failed.take() {
            return Err(error);
        }
        let State { inputs, lines, connections, totals, .. } = &mut *state;
        let mut piece = vec![0; 1 << 16];
        for place in 0..inputs.len() as u64 {
            lines.take(place, |bytes| {
                loop {
                    match bytes.read(&mut piece)? {
                        0 => return Ok::<_, io::Error>(()),
                        count => each(&piece[..count])?,
                    }
                }
            })?;
        }
        each(format!("{{\"connections\":{connections},\"redacted\":{}}}\n", object(totals)).as_bytes())
    }
}

impl State {
    fn place(&mut self, input: &str) -> &mut (u64, u64) {
        let next = self.inputs.len() as u64;
        if !self.inputs.contains_key(input) {
            self.inputs.insert(input.to_owned(), (next, 0));
        }
        self.inputs.get_mut(input).expect("it was inserted if it was not there")
    }
}

impl Redaction {
    /// Adds a connection of a trace to the report, if there is one: the next of this trace. `trace` is the path of the
    /// trace as messages show it.
    pub(crate) fn report_connection(&self, trace: &str, trace_id: u64, counts: &Counts) {
        let Some(report) = &self.report else { return };
        let shown = escape_json(&serde_json::Value::from(&*self.file(trace)).to_string()).into_owned();
        let trace_id = self.trace_id(trace_id);
        let mut state = report.lock();
        state.connections += 1;
        state.totals.merge(counts);
        let (place, number) = state.place(trace);
        *number += 1;
        let (place, number) = (*place, *number);
        let redacted = object(counts);
        let added = state.lines.push(place, |line| {
            let written = writeln!(
                line,
                "{{\"trace\":{shown},\"trace_id\":{trace_id},\"connection\":{number},\"redacted\":{redacted}}}"
            );
            written.expect("writing to memory cannot fail");
        });
        if let Err(error) = added {
            state.failed.get_or_insert(error);
        }
    }
}

/// The kinds that there were, and all together.
fn object(counts: &Counts) -> String {
    let mut object = String::from("{");
    let mut total = 0_u64;
    for kind in Kind::ALL {
        let number = counts.of(kind);
        total = total.saturating_add(number);
        if number > 0 {
            object += &format!("\"{}\":{number},", kind.name());
        }
    }
    object + &format!("\"total\":{total}}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(report: &Report) -> String {
        let mut out = Vec::new();
        report.finish(|bytes| out.write_all(bytes)).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_come_in_the_order_of_the_inputs() {
        let report = Some(Report::new("x".into()));
        let redaction = Redaction { report, ..Redaction::default() };
        let report = redaction.report.as_ref().unwrap();
        report.expect(["a.pb", "b\"\u{202e}.pb"].map(Path::new));
        let mut counts = Counts::default();
        counts.add(Kind::Field, 2);
        counts.add(Kind::Body, 1);
        redaction.report_connection("late.pb", 9, &Counts::default());
        redaction.report_connection("b\"\u{202e}.pb", 3, &counts);
        redaction.report_connection("a.pb", 1, &counts);
        redaction.report_connection("a.pb", 2, &Counts::default());
        let expected = concat!(
            r#"{"trace":"a.pb","trace_id":1,"connection":1,"redacted":{"header_values":2,"bodies":1,"total":3}}"#,
            "\n",
            r#"{"trace":"a.pb","trace_id":2,"connection":2,"redacted":{"total":0}}"#,
            "\n",
            r#"{"trace":"b\"\u202e.pb","trace_id":3,"connection":1,"redacted":{"header_values":2,"bodies":1,"total":3}}"#,
            "\n",
            r#"{"trace":"late.pb","trace_id":9,"connection":1,"redacted":{"total":0}}"#,
            "\n",
            r#"{"connections":4,"redacted":{"header_values":4,"bodies":2,"total":6}}"#,
            "\n",
        );
        assert_eq!(text(report), expected);
    }
}
