//! The README shows the program that the tests compile and run.

#[test]
fn the_program_in_the_readme_is_the_example() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(root.join(name)).expect(name);
    let example = read("examples/c/hello.c");
    assert!(
        read("README.md").contains(example.trim()),
        "README.md has not the program of examples/c/hello.c"
    );
}
