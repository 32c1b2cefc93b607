//! Each mutant fits the source as it is, and the test that catches it exists. That it is caught, `make mutants` shows.

use std::path::Path;
use suite::mutants::Mutant;

#[test]
fn each_mutant_fits_the_source_and_names_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mutants = Mutant::all(root).unwrap();
    assert!(!mutants.is_empty());
    for mutant in mutants {
        mutant.mutated(root).unwrap_or_else(|error| panic!("{error:#}"));
        let after = |flag: &str| mutant.test.iter().skip_while(|word| *word != flag).nth(1);
        let package = after("-p").expect("a test has a package");
        let folder = if package == "suite" { root.join("tests") } else { root.join("crates").join(package) };
        let name = mutant.test.last().unwrap().rsplit("::").next().unwrap().to_owned();
        let mut sources = sources(&folder.join("tests"));
        sources.extend(self::sources(&folder.join("src")));
        let heading = format!("fn {name}(");
        assert!(sources.iter().any(|source| source.contains(&heading)), "{}: no test {name} in {package}", mutant.name);
    }
}

fn sources(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.extend(std::fs::read_to_string(&path));
        }
    }
    found
}
