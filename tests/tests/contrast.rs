//! What `make contrast` runs, Flotilla's side alone; and the table of it that the README shows.

use suite::contrast::{Fleet, ROWS};
use testkit::Mode;

#[tokio::test]
async fn flotilla_holds_every_row_of_the_contrast() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let fleet = Fleet::of_flotilla().await;
    for row in &ROWS {
        if let Err(harm) = row.run(&fleet).await {
            panic!("{}: {harm:#}", row.name);
        }
    }
}

#[test]
fn the_readme_shows_every_row_of_the_contrast() {
    let readme = std::fs::read_to_string(testkit::install::repository().join("README.md")).unwrap();
    for row in &ROWS {
        let line = format!("| {} | {} |", row.name, row.done);
        assert!(readme.contains(&line), "README.md has no line {line}");
    }
}
