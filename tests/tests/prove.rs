//! What `make prove` lists is there. What comes of it, `make prove` shows.

use suite::prove::Proof;

#[test]
fn each_proof_names_a_test_that_exists_and_counts_its_rounds() {
    let root = testkit::install::repository();
    for proof in Proof::all(&root).unwrap() {
        let [file, name] = &proof.test;
        let source = std::fs::read_to_string(root.join("tests/tests").join(file).with_extension("rs"));
        let source = source.unwrap_or_else(|error| panic!("tests/tests/{file}.rs: {error}"));
        assert!(source.contains(&format!("fn {name}(")), "no test {name} in tests/tests/{file}.rs");
        assert!(proof.rounds == 1 || source.contains("rounds("), "tests/tests/{file}.rs counts no rounds");
        assert!(proof.rounds > 0 && proof.times > 0, "{name} does nothing");
    }
}
