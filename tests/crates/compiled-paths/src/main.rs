//! Prints its arguments, for a test that starts this program.

fn main() {
    println!("{}", std::env::args().skip(1).collect::<Vec<_>>().join(" "));
}
