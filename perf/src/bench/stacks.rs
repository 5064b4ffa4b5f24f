//! Call stacks from `perf` (Debian: linux-perf), with the source files of the node's own frames.
//!
//! `perf record --call-graph dwarf` needs no frame pointers, so the release build is what is measured.
//! `perf script` prints addresses as offsets in the file; `readelf` says where the code lies in memory, and
//! `addr2line` resolves what the compiler inlined.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::LabError;

/// One function of a stack, innermost first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// As `perf` prints it: an offset in the file, or a kernel address.
    pub(super) address: u64,
    /// Its name.
    pub(super) symbol: String,
    /// The file that holds it.
    pub(super) object: String,
}

/// One stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stack {
    /// The thread's name.
    pub(super) thread: String,
    /// The process.
    pub(super) process: u32,
    /// Innermost first.
    pub(super) frames: Vec<Frame>,
}

/// Reads a recording of `perf`.
pub(super) fn read(recording: &Path) -> Result<Vec<Stack>, LabError> {
    let mut perf = Command::new("perf");
    perf.args(["script", "--no-inline", "-F", "comm,pid,tid,ip,sym,dso", "-i"]).arg(recording);
    Ok(parse(&output_of("perf", &mut perf)?))
}

/// Source places of the addresses of `program`, innermost first: what was inlined, then the function.
#[derive(Debug, Default)]
pub(super) struct Places(BTreeMap<u64, Vec<String>>);

impl Places {
    /// Resolves every frame of `stacks` that lies in `program`.
    pub(super) fn resolve(program: &Path, stacks: &[Stack]) -> Result<Self, LabError> {
        let own = program.to_string_lossy();
        let addresses: BTreeSet<u64> = stacks
            .iter()
            .flat_map(|stack| stack.frames.iter().enumerate())
            .filter(|(_, frame)| frame.object == own)
            .map(|(at, frame)| lookup_address(at, frame))
            .collect();
        let shift = code_shift(&output_of("readelf", Command::new("readelf").arg("-lW").arg(program))?);
        let mut found = BTreeMap::new();
        let list: Vec<u64> = addresses.into_iter().collect();
        for part in list.chunks(500) {
            let mut tool = Command::new("addr2line");
            tool.args(["-a", "-i", "-e"]).arg(program);
            tool.args(part.iter().map(|address| format!("{:#x}", address + shift)));
            let text = output_of("addr2line", &mut tool)?;
            found.extend(parse_places(&text).into_iter().map(|(address, places)| (address - shift, places)));
        }
        Ok(Self(found))
    }

    /// The places of frame number `at` of a stack.
    pub(super) fn of(&self, at: usize, frame: &Frame) -> &[String] {
        self.0.get(&lookup_address(at, frame)).map_or(&[], Vec::as_slice)
    }
}

/// A caller's address is where it goes on; the call is just before.
fn lookup_address(at: usize, frame: &Frame) -> u64 {
    frame.address - u64::from(at > 0)
}

/// What `tool` prints; its complaint if it fails.
pub(super) fn output_of(tool: &'static str, command: &mut Command) -> Result<String, LabError> {
    let failed = |reason: String| LabError::Tool { what: tool.to_owned(), reason };
    let output = command.stdin(Stdio::null()).output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Stacks from `perf script`: a line for the sample, a line for each frame, an empty line.
fn parse(text: &str) -> Vec<Stack> {
    text.split("\n\n").filter_map(parse_stack).collect()
}

fn parse_stack(text: &str) -> Option<Stack> {
    let mut lines = text.lines().skip_while(|line| line.trim().is_empty());
    let (thread, rest) = lines.next()?.trim().rsplit_once(' ').map(|(name, ids)| (name.trim(), ids))?;
    let process = rest.split('/').next()?.parse().ok()?;
    let frames = lines.filter_map(|line| {
        let (address, rest) = line.trim().split_once(' ')?;
        let (symbol, object) = rest.rsplit_once(" (")?;
        Some(Frame {
            address: u64::from_str_radix(address, 16).ok()?,
            symbol: symbol.to_owned(),
            object: object.trim_end_matches(')').to_owned(),
        })
    });
    Some(Stack { thread: thread.to_owned(), process, frames: frames.collect() })
}

/// How far the executable segment lies behind its place in the file, from `readelf -lW`.
fn code_shift(headers: &str) -> u64 {
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    let code = headers.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    code.filter(|fields| fields.first() == Some(&"LOAD") && fields.contains(&"E"))
        .find_map(|fields| number(fields[2])?.checked_sub(number(fields[1])?))
        .unwrap_or(0)
}

/// Places from `addr2line -a -i`: an address, then `file:line` from the innermost out.
fn parse_places(text: &str) -> BTreeMap<u64, Vec<String>> {
    let mut found: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let mut current = None;
    for line in text.lines() {
        if let Some(address) = line.strip_prefix("0x").and_then(|hex| u64::from_str_radix(hex, 16).ok()) {
            current = Some(address);
        } else if let Some(address) = current {
            let place = line.split(" (").next().unwrap_or(line);
            found.entry(address).or_default().push(place.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_stacks() {
        let text = "worker-0 12/13 \n\t ffffffff81e66814 io_send ([kernel.kallsyms])\n\
            \t   3f56ad <a as b>::c (/x/zen dataplane)\n\niou-wrk-9 12/14 \n\t 1 f (g)\n\n";
        let stacks = parse(text);
        assert_eq!(stacks.len(), 2);
        assert_eq!((stacks[0].thread.as_str(), stacks[0].process), ("worker-0", 12));
        let inner = &stacks[0].frames[0];
        assert_eq!((inner.symbol.as_str(), inner.object.as_str()), ("io_send", "[kernel.kallsyms]"));
        let outer = &stacks[0].frames[1];
        assert_eq!((outer.address, outer.symbol.as_str()), (0x3f_56ad, "<a as b>::c"));
        assert_eq!(outer.object, "/x/zen dataplane");
        assert_eq!(lookup_address(1, outer), 0x3f_56ac);
    }

    #[test]
    fn places_and_the_shift_of_the_code() {
        let headers = "  LOAD 0x000000 0x0000000000000000 0x0 0x2 0x2 R   0x1000\n\
            \x20 LOAD 0x20a800 0x000000000020b800 0x20b800 0x5 0x5 R E 0x1000\n";
        assert_eq!(code_shift(headers), 0x1000);
        let places = parse_places("0x000000000000002a\n/a/b.rs:1 (discriminator 2)\n/a/c.rs:9\n0x2b\n??:0\n");
        assert_eq!(places[&42], ["/a/b.rs:1", "/a/c.rs:9"]);
        assert_eq!(places[&43], ["??:0"]);
    }
}
