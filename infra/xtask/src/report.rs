//! Headings, durations and the closing table of a run of several steps.

use std::time::{Duration, Instant};

use crate::Findings;

/// How one step ended.
struct Outcome {
    name: &'static str,
    findings: usize,
    took: Duration,
}

/// Runs steps one after the other and remembers how each ended.
#[derive(Default)]
pub(crate) struct Report {
    outcomes: Vec<Outcome>,
}

impl Report {
    /// Runs one step under a heading and prints what it found. A failure does not keep later steps from running.
    pub(crate) fn step(
        &mut self,
        name: &'static str,
        title: &str,
        run: impl FnOnce() -> Findings,
    ) -> bool {
        println!("\n=== {name}: {title}");
        let started = Instant::now();
        let findings = run().unwrap_or_else(|error| vec![error.to_string()]);
        let took = started.elapsed();
        for finding in &findings {
            println!("  - {finding}");
        }
        println!(
            "=== {name}: {} in {:.1} s",
            verdict(findings.len()),
            took.as_secs_f64()
        );
        self.outcomes.push(Outcome {
            name,
            findings: findings.len(),
            took,
        });
        findings.is_empty()
    }

    /// Prints the table of all steps; true when none of them found anything.
    pub(crate) fn summary(&self) -> bool {
        println!("\n{:<14} {:<24} {:>9}", "step", "result", "seconds");
        for outcome in &self.outcomes {
            println!(
                "{:<14} {:<24} {:>9.1}",
                outcome.name,
                verdict(outcome.findings),
                outcome.took.as_secs_f64()
            );
        }
        let total: Duration = self.outcomes.iter().map(|outcome| outcome.took).sum();
        let failed = self
            .outcomes
            .iter()
            .filter(|outcome| outcome.findings > 0)
            .count();
        let result = if failed == 0 {
            "ok".to_owned()
        } else {
            format!("{failed} FAILED")
        };
        println!("{:<14} {result:<24} {:>9.1}", "total", total.as_secs_f64());
        failed == 0
    }
}

fn verdict(findings: usize) -> String {
    match findings {
        0 => "ok".to_owned(),
        1 => "FAILED (1 finding)".to_owned(),
        many => format!("FAILED ({many} findings)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_step_fails_the_run_and_later_steps_still_run() {
        let mut report = Report::default();
        assert!(!report.step("first", "finds something", || Ok(vec!["wrong".to_owned()])));
        assert!(report.step("second", "is fine", || Ok(Vec::new())));
        assert!(!report.summary());
    }

    #[test]
    fn a_step_that_cannot_be_run_has_failed() {
        let mut report = Report::default();
        assert!(!report.step("only", "cannot run", || Err("no such program".into())));
        assert!(!report.summary());
    }

    #[test]
    fn a_run_without_findings_passes() {
        let mut report = Report::default();
        assert!(report.step("only", "is fine", || Ok(Vec::new())));
        assert!(report.summary());
    }
}
