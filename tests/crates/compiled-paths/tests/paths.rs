//! Each test uses an absolute path that the compiler wrote into it: the same path must hold where the test runs.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

fn text_of(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn own_binary() {
    let output = Command::new(env!("CARGO_BIN_EXE_compiled-paths"))
        .args(["one", "two"])
        .output()
        .expect("the program of this package starts");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "one two\n");
}

#[test]
fn own_binary_at_run_time() {
    let path = env::var("NEXTEST_BIN_EXE_compiled-paths").expect("nextest names the program");
    assert_eq!(path, env!("CARGO_BIN_EXE_compiled-paths"));
}

#[test]
fn output_of_the_build_script() {
    let path = Path::new(env!("OUT_DIR")).join("built.txt");
    assert_eq!(text_of(&path), "made by the build script\n");
}

#[test]
fn file_of_the_sources() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/fixture.txt");
    assert_eq!(text_of(&path), "a file of the sources\n");
}

#[test]
fn hidden_file_of_the_sources() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".hidden-fixture");
    assert_eq!(text_of(&path), "a hidden file of the sources\n");
}

#[test]
fn works_in_the_package_directory() {
    let here = env::current_dir().expect("the working directory exists");
    assert_eq!(here, Path::new(env!("CARGO_MANIFEST_DIR")));
}

#[test]
fn file_in_the_temporary_directory() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("compiled-paths-{}", std::process::id()));
    fs::write(&path, "scratch\n").unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(text_of(&path), "scratch\n");
    fs::remove_file(&path).expect("the file can be removed again");
}

/// Snapshot tests do this: the sources are writable, and nothing of it stays.
#[test]
fn file_in_the_sources() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("written-{}.txt", std::process::id()));
    fs::write(&path, "written\n").unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(text_of(&path), "written\n");
    fs::remove_file(&path).expect("the file can be removed again");
}
