//! The rows, their budgets, and how they are printed.

use std::collections::BTreeMap;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the table below says what each is")]
pub enum Row {
    PromptP50,
    PromptLate,
    LateRatio,
    PromptsPerSecond,
    CpuPerPrompt,
    RedisCpuPerPrompt,
    MemoryIdle,
    MemoryAfter,
    DeltaP50,
    DeltaP99,
    DeltaOtherP50,
    DeltaOtherP99,
    AbortP50,
    AbortP99,
    AbortMax,
    List600,
    FirstPageCold,
    FirstPage,
    PageOfFew,
    PageOfMany,
    PageGrowth,
    PromptAfterFew,
    PromptAfterMany,
    PromptGrowth,
    PromptAfterSummary,
    SummaryGrowth,
    CreatesPerSecond,
    CpuPerCreate,
    Streams,
    StreamsAtOnce,
    RedisCommands,
    RedisHistory,
    RedisLocks,
    RedisPublishes,
    RedisIdle,
    CpuIdle,
    FleetPrompt,
    FleetCpu,
    DiskPromptP50,
    DiskPromptsPerSecond,
    DiskCreatesPerSecond,
}

/// A column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Column {
    /// `opencode serve`.
    OpenCode,
    /// One replica on Redis.
    One,
    /// Three replicas, each request at the next.
    Three,
}

/// The bound that a value must keep.
#[derive(Debug, Clone, Copy)]
enum Budget {
    Below(f64),
    AtMost(f64),
    Above(f64),
    None,
}

impl Budget {
    fn text(self) -> String {
        match self {
            Self::Below(bound) => format!("< {bound}"),
            Self::AtMost(bound) => format!("<= {bound}"),
            Self::Above(bound) => format!("> {bound}"),
            Self::None => String::new(),
        }
    }

    fn met(self, value: f64) -> Option<bool> {
        match self {
            Self::Below(bound) => Some(value < bound),
            Self::AtMost(bound) => Some(value <= bound),
            Self::Above(bound) => Some(value > bound),
            Self::None => None,
        }
    }
}

/// What was measured, by row and column, and what is to be said about it.
#[derive(Debug, Default)]
pub struct Table {
    values: BTreeMap<(Row, Column), f64>,
    notes: Vec<String>,
}

impl Table {
    /// Puts a value into its place.
    pub fn put(&mut self, row: Row, column: Column, value: f64) {
        self.values.insert((row, column), value);
    }

    /// A value that was measured.
    pub fn get(&self, row: Row, column: Column) -> Option<f64> {
        self.values.get(&(row, column)).copied()
    }

    /// Adds a remark, and prints it at once.
    pub fn note(&mut self, text: String) {
        eprintln!("  {text}");
        self.notes.push(text);
    }

    /// The table as Markdown, and the remarks.
    pub fn text(&self, late: usize, long: usize) -> String {
        use Budget::{Above, AtMost, Below, None};
        use Column::{One, Three};
        let late_label = format!("the same at turn {late}, ms");
        let page_cold = format!("first page (50) of {long} messages, just started, ms");
        let page = format!("first page (50) of {long} messages, ms");
        let rows: Vec<(Row, &str, Budget, Column)> = vec![
            (Row::PromptP50, "prompt p50, one at a time, turns 1 to 50, ms", Below(5.0), One),
            (Row::PromptLate, &late_label, None, One),
            (Row::LateRatio, "... as a multiple of turn 1", AtMost(1.3), One),
            (Row::PromptsPerSecond, "prompts per second, 64 sessions", Above(600.0), One),
            (Row::CpuPerPrompt, "server CPU per prompt, ms", Below(1.0), One),
            (Row::RedisCpuPerPrompt, "Redis CPU per prompt, ms", None, One),
            (Row::MemoryIdle, "resident memory, idle, MB", Below(20.0), One),
            (Row::MemoryAfter, "resident memory after that load, MB", Below(80.0), One),
            (Row::DeltaP50, "delta from model to event stream, p50, ms", Below(1.0), One),
            (Row::DeltaP99, "... p99, ms", Below(5.0), One),
            (Row::DeltaOtherP50, "delta to a stream of another replica, p50, ms", Below(2.0), Three),
            (Row::DeltaOtherP99, "... p99, ms", Below(5.0), Three),
            (Row::AbortP50, "abort (at another replica) to model connection dropped, p50, ms", None, Three),
            (Row::AbortP99, "... p99, ms", Below(10.0), Three),
            (Row::AbortMax, "... max, ms", None, Three),
            (Row::List600, "list 600 messages, ms", Below(10.0), One),
            (Row::FirstPageCold, &page_cold, None, One),
            (Row::FirstPage, &page, Below(20.0), One),
            (Row::PageOfFew, "first page (20) of 20 messages, ms", None, One),
            (Row::PageOfMany, "... of 2,000 messages, ms", None, One),
            (Row::PageGrowth, "... as a multiple of that of 20", AtMost(1.3), One),
            (Row::PromptAfterFew, "prompt p50 after 20 messages, ms", None, One),
            (Row::PromptAfterMany, "... after 2,000 messages, all of them sent to the model, ms", None, One),
            (Row::PromptGrowth, "... as a multiple of that after 20", None, One),
            (Row::PromptAfterSummary, "... after 2,000 messages and a summary of them, ms", None, One),
            (Row::SummaryGrowth, "... as a multiple of that after 20", AtMost(1.3), One),
            (Row::CreatesPerSecond, "session creates per second", Above(3000.0), One),
            (Row::CpuPerCreate, "server CPU per create, ms", None, One),
            (Row::StreamsAtOnce, "200 event streams x 100 deltas, as fast as the model writes, CPU s", Below(0.1), One),
            (Row::Streams, "... 5 ms apart, CPU s", None, One),
            (Row::RedisCommands, "Redis commands per prompt of one step, locks apart", AtMost(12.0), One),
            (Row::RedisHistory, "... more of them at a late turn", AtMost(0.0), One),
            (Row::RedisLocks, "... commands about locks", None, One),
            (Row::RedisPublishes, "Redis commands per delta that comes alone", AtMost(1.0), One),
            (Row::RedisIdle, "Redis commands per second of an idle replica", None, One),
            (Row::CpuIdle, "CPU of an idle replica, ms per second", None, One),
            (Row::FleetPrompt, "three replicas in rotation: prompt p50, multiple of one", AtMost(1.3), Three),
            (Row::FleetCpu, "three replicas in rotation: CPU per prompt, multiple of one", AtMost(1.3), Three),
            (Row::DiskPromptP50, "durability disk: prompt p50, ms", None, One),
            (Row::DiskPromptsPerSecond, "durability disk: prompts per second, 64 sessions", None, One),
            (Row::DiskCreatesPerSecond, "durability disk: session creates per second", None, One),
        ];
        let header = ["row", "OpenCode", "one replica", "three replicas", "one / OpenCode", "budget", "met?"];
        let mut lines = vec![header.map(str::to_string)];
        for (row, label, budget, judged) in rows {
            let value = |column| self.get(row, column);
            let ratio = value(Column::One).zip(value(Column::OpenCode)).map(|(one, opencode)| one / opencode);
            let met = value(judged).and_then(|value| budget.met(value));
            lines.push([
                label.to_string(),
                number(value(Column::OpenCode)),
                number(value(Column::One)),
                number(value(Column::Three)),
                number(ratio),
                budget.text(),
                met.map_or("", |met| if met { "yes" } else { "NO" }).to_string(),
            ]);
        }
        let widths: Vec<usize> =
            (0..header.len()).map(|at| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0)).collect();
        let mut text = String::new();
        for (number, line) in lines.iter().enumerate() {
            for (at, cell) in line.iter().enumerate() {
                text +=
                    &if at == 0 { format!("| {cell:<0$} |", widths[at]) } else { format!(" {cell:>0$} |", widths[at]) };
            }
            text.push('\n');
            if number == 0 {
                for width in &widths {
                    text += &format!("|{}", "-".repeat(width + 2));
                }
                text += "|\n";
            }
        }
        text.push('\n');
        for note in &self.notes {
            text += &format!("- {note}\n");
        }
        text
    }
}

/// Three significant digits, or a dash.
fn number(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(value) if value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) if value.abs() >= 1.0 => format!("{value:.2}"),
        Some(value) => format!("{value:.3}"),
    }
}

/// The value below which this part of the samples lies.
pub fn quantile(samples: &mut [f64], part: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let at = (samples.len() as f64 * part) as usize;
    samples.get(at.min(samples.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_sample() {
        let mut samples: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|part| quantile(&mut samples, part)), [1.0, 51.0, 100.0, 100.0]);
    }

    #[test]
    fn what_was_not_measured_is_a_dash() {
        let mut table = Table::default();
        table.put(Row::PromptP50, Column::One, 6.0);
        let text = table.text(300, 1000);
        let line: Vec<&str> = text.lines().nth(2).unwrap_or_default().split('|').map(str::trim).collect();
        assert_eq!(line[2..], ["-", "6.00", "-", "-", "< 5", "NO", ""]);
    }
}
