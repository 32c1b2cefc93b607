//! `flotilla config`: each effective value and where it came from.

use super::secret::MASK;
use super::sources::{Origin, Sources};
use super::table::{Kind, Place, Row, Scope, TABLE};
use std::fmt::Write;

/// A line for each setting of a replica: its name, its value, its origin. Secrets are masked.
pub fn show(sources: &Sources) -> String {
    let mut lines = String::new();
    for row in TABLE.iter().filter(|row| row.scopes.contains(&Scope::Serve)) {
        let given = sources.get(row.name);
        let name = match row.place {
            Place::Variable(name) => name.to_owned(),
            _ => row.name.to_owned(),
        };
        let origin = match &given.origin {
            Origin::Default(_) => "default".to_owned(),
            origin => origin.to_string(),
        };
        // Writing to a string does not fail.
        let _ = writeln!(lines, "{name:<24} {:<32} {origin}", value(row, &given.texts));
    }
    lines
}

fn value(row: &Row, texts: &[String]) -> String {
    if texts.is_empty() {
        return "-".to_owned();
    }
    let shown: Vec<_> = texts.iter().map(|text| if row.secret { MASK } else { text }).collect();
    match row.kind {
        Kind::Many => shown.join(","),
        Kind::One | Kind::Switch => shown.concat(),
    }
}
