//! What the tests share: an oracle, bytes, and every engine that this machine has.
#![allow(dead_code, reason = "no test uses all of it")]

use std::sync::LazyLock;

use zen_hmac::{Engine, Kernel};

pub fn oracle(secret: &[u8], message: &[u8]) -> Vec<u8> {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
    aws_lc_rs::hmac::sign(&key, message).as_ref().to_vec()
}

pub fn bytes(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed) ^ (at >> 8) as u8).collect()
}

pub fn hex(text: &str) -> Vec<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16).expect("a hex digit") as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// The fields of each line of a fixture; `-` is empty.
pub fn fixture(text: &str) -> Vec<Vec<&str>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(' ').map(|field| if field == "-" { "" } else { field }).collect()).collect()
}

/// The engine that measuring chooses, and each kernel forced; says which of them cannot run here.
pub fn engines() -> &'static [(String, Engine)] {
    static ENGINES: LazyLock<Vec<(String, Engine)>> = LazyLock::new(find_engines);
    &ENGINES
}

fn find_engines() -> Vec<(String, Engine)> {
    let mut engines = vec![("measured".to_owned(), Engine::measured())];
    for kernel in Kernel::ALL {
        if kernel.is_available() {
            engines.push((kernel.to_string(), Engine::forced(kernel).expect("passes its self-test")));
        } else {
            println!("{kernel}: not run, this processor does not have it");
        }
    }
    engines
}
