//! Who descends from a process: what a program that knows no supervisor leaves running is found so.

use std::collections::BTreeMap;
use std::fs;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// Kills a process, its group, and those who descend from it, wherever they went.
///
/// Who descends is looked up first: children of a process that is gone have another parent.
pub(crate) fn kill(root: Pid) {
    let found = descendants(root.as_raw_pid());
    let _ = kill_process_group(root, Signal::KILL);
    // One that is at the terminal has no group of its own.
    let _ = kill_process(root, Signal::KILL);
    for pid in found.into_iter().filter_map(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

fn descendants(root: i32) -> Vec<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut next = vec![root];
    while let Some(pid) = next.pop() {
        let own = children.remove(&pid).unwrap_or_default();
        found.extend(&own);
        next.extend(own);
    }
    found
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name, in parentheses, and may hold anything.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn who_went_into_a_group_of_its_own_is_found() {
        let script = "setsid sh -c 'echo $$; exec sleep 60' & wait";
        let mut shell = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let grandchild: i32 = said.trim().parse().unwrap();
        let root = i32::try_from(shell.id()).unwrap();
        assert!(descendants(root).contains(&grandchild));
        assert!(descendants(i32::try_from(std::process::id()).unwrap()).contains(&grandchild));
        kill(Pid::from_raw(root).unwrap());
        let _ = kill_process(Pid::from_raw(root).unwrap(), Signal::KILL);
        shell.wait().unwrap();
        let dead = |state: Option<String>| state.is_none_or(|state| state.contains(") Z "));
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !dead(fs::read_to_string(format!("/proc/{grandchild}/stat")).ok()) {
            assert!(std::time::Instant::now() < until, "it runs on");
            std::thread::yield_now();
        }
    }
}
