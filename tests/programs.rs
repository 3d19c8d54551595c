//! No script and no test uses a program that a bare machine may lack: `scripts/setup` brings it, or Debian's smallest
//! variant (`minbase`) has it. And `scripts/setup` installs nothing unlisted, and nothing after a no.

#![allow(clippy::expect_used, clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tree_sitter::{Node, Parser, Tree};

/// Bash builtins, `kill` among them.
const BUILTINS: &str = ". : [ alias bg break builtin caller cd command compgen complete compopt continue declare \
    dirs disown echo enable eval exec exit export false fc fg getopts hash help history jobs kill let local logout \
    mapfile popd printf pushd pwd read readarray readonly return set shift shopt source suspend test times trap true \
    type typeset ulimit umask unalias unset wait";

/// From packages that every Debian has: coreutils, util-linux, findutils, grep, sed, mawk, tar, gzip, diffutils, bash,
/// dash, mount, apt, dpkg.
const MINBASE: &str = "arch b2sum base32 base64 basename basenc cat chgrp chmod chown chroot cksum comm cp csplit cut \
    date dd df dir dircolors dirname du echo env expand expr factor false fmt fold groups head hostid id install join \
    link ln logname ls md5sum mkdir mkfifo mknod mktemp mv nice nl nohup nproc numfmt od paste pathchk pinky pr \
    printenv printf ptx pwd readlink realpath rm rmdir runcon seq sha1sum sha224sum sha256sum sha384sum sha512sum \
    shred shuf sleep sort split stat stdbuf stty sum sync tac tail tee test timeout touch tr true truncate tsort tty \
    uname unexpand uniq unlink users vdir wc who whoami yes \
    dmesg fallocate flock getopt ionice ipcmk lsblk lscpu lsns mcookie more mountpoint namei nsenter partx prlimit \
    renice setpriv setsid taskset unshare whereis \
    find xargs grep egrep fgrep sed awk tar gzip gunzip zcat cmp diff bash sh mount umount apt-get apt-cache dpkg \
    dpkg-deb dpkg-query script";

/// A script checks whether these are there, and goes on without them.
const ASKED_FOR: &str = "gdb kcat rustup sudo";

/// These run another program: their first word that is no option, number or variable.
const WRAPPERS: &str =
    "as_root chroot command env exec ionice nice nohup setsid stdbuf sudo time timeout unshare xargs";

/// These run in images, which bring what they use.
const IN_IMAGES: [&str; 2] = ["scripts/images/", "deploy/compose/secure/mosquitto"];

#[test]
fn every_program_that_a_script_or_a_test_uses_is_in_minbase_or_comes_by_setup() {
    let (mut known, optional) = programs_of_setup();
    known.extend(optional);
    known.extend(words(MINBASE).chain(words(ASKED_FOR)));

    let mut unknown: Vec<String> = Vec::new();
    for (program, file) in used_programs() {
        if !known.contains(&program) {
            unknown.push(format!("{program} in {}", file.display()));
        }
    }

    assert!(
        unknown.is_empty(),
        "a bare machine may lack these: let scripts/setup bring them, or do without: {unknown:#?}"
    );
}

#[test]
fn every_program_that_is_used_is_on_this_machine_after_setup() {
    let (_, optional) = programs_of_setup();
    let missing: Vec<String> = used_programs()
        .into_keys()
        .filter(|program| !optional.contains(program) && !is_one_of(ASKED_FOR, program))
        .filter(|program| !is_in_path(program))
        .collect();
    assert!(missing.is_empty(), "run scripts/setup; it left out: {missing:?}");
}

/// Where the script parser errs, the tests above prove nothing.
#[test]
fn programs_are_found_wherever_a_script_can_name_them() {
    let script = r#"#!/bin/bash
one() { two --option "$(three <"$file" | four)"; }
if ! five && LANG=C six; then one; else for x in $(seven); do :; done; fi
case $x in eight) nine ;; *) "$variable" ;; esac
env A=b timeout -k 1 20 ten arg
exec eleven "${array[@]}" <<TEXT
$(twelve) is run, fifteen is not
TEXT
find . -name '*.x' -exec thirteen {} +
bash -c 'fourteen $1' sh
exec "$program" argument
timeout 5 setsid "$program" argument
echo "sixteen" 'seventeen' # eighteen
"#;
    let (found, functions) = read_script(script);
    let expected = "bash eleven env find five four fourteen nine one setsid seven six ten thirteen three timeout twelve two";
    let builtins = words(BUILTINS).collect::<BTreeSet<_>>();
    let found: BTreeSet<String> = found.difference(&builtins).cloned().collect();
    assert_eq!(found, words(expected).collect());
    assert_eq!(functions, BTreeSet::from(["one".to_owned()]));
}

#[test]
fn setup_lists_what_is_missing_and_by_what_means_and_installs_nothing_when_told_so() {
    let machine = BareMachine::new();
    for no in ["n", "N"] {
        let (code, said) = machine.setup_at_a_terminal(no);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("nothing was installed"), "{said}");
    }
    let (code, said) = machine.setup(&["--no-install"]);
    assert_eq!(code, Some(1), "{said}");
    for what in ["a C and a C++ compiler", "apt-get: build-essential", "apt-get: make", "--no-install"] {
        assert!(said.contains(what), "{what} is not in: {said}");
    }
    assert_eq!(machine.installed(), "");

    // Without a terminal there is no one to say no; a tool that is still missing afterwards is reported.
    let (code, said) = machine.setup(&[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("still not there after its installation"), "{said}");
    assert!(machine.installed().contains("build-essential make"), "{}", machine.installed());
}

/// A folder of programs, the only ones that a script finds: those of every machine, and an apt-get that only takes
/// notes.
struct BareMachine(tempfile::TempDir);

impl BareMachine {
    fn new() -> BareMachine {
        let folder = tempfile::tempdir().unwrap();
        for program in ["bash", "sed", "tr"] {
            let path =
                path().split(':').map(|folder| Path::new(folder).join(program)).find(|path| path.is_file());
            std::os::unix::fs::symlink(path.unwrap(), folder.path().join(program)).unwrap();
        }
        let notes = folder.path().join("notes");
        for (program, text) in [
            ("apt-get", format!("#!/bin/sh\necho \"$@\" >>{}\n", notes.display())),
            ("apt-cache", "#!/bin/sh\nexit 1\n".to_owned()),
            ("env", "#!/bin/sh\nshift\nexec \"$@\"\n".to_owned()),
            ("sudo", "#!/bin/sh\n[ \"$2\" = true ] && exit 0\nshift\nexec \"$@\"\n".to_owned()),
        ] {
            let file = folder.path().join(program);
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        BareMachine(folder)
    }

    fn run(&self, command: &mut Command, input: &str) -> (Option<i32>, String) {
        command.env_clear().env("PATH", self.0.path()).env("HOME", self.0.path());
        let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = streams.spawn().expect("it starts");
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    fn setup(&self, options: &[&str]) -> (Option<i32>, String) {
        let script = project().join("scripts/setup");
        self.run(Command::new("/bin/bash").arg(script).args(options).args(["cc", "make"]), "")
    }

    fn setup_at_a_terminal(&self, keys: &str) -> (Option<i32>, String) {
        let setup = format!("/bin/bash {} cc make", project().join("scripts/setup").display());
        self.run(Command::new("/usr/bin/script").args(["-qec", &setup, "/dev/null"]), keys)
    }

    fn installed(&self) -> String {
        std::fs::read_to_string(self.0.path().join("notes")).unwrap_or_default()
    }
}

// ---------------------------------------------------------------------------------------------------------------------

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split_whitespace().map(str::to_owned)
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The tools that `scripts/setup` ensures, and those that it brings where it can.
fn programs_of_setup() -> (BTreeSet<String>, BTreeSet<String>) {
    let output = Command::new(project().join("scripts/setup")).arg("--list").output().expect("bash runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let list = String::from_utf8(output.stdout).expect("UTF-8");
    let (mut needed, mut optional) = (BTreeSet::new(), BTreeSet::new());
    for line in list.lines() {
        let mut fields = line.split('|');
        let (tool, programs) = (fields.next().unwrap(), fields.next().unwrap());
        if tool.ends_with('?') { &mut optional } else { &mut needed }.extend(words(programs));
    }
    assert!(needed.contains("cargo"), "{list}");
    (needed, optional)
}

/// Each program, and a file that uses it.
fn used_programs() -> BTreeMap<String, PathBuf> {
    let mut programs = BTreeMap::new();
    let mut functions: BTreeSet<String> = words(BUILTINS).collect();
    for file in files(project()) {
        let relative = file.strip_prefix(project()).unwrap().to_owned();
        if IN_IMAGES.iter().any(|path| relative.starts_with(path)) {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        let found = match file.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => between(&text, "Command::new(\"", "\""),
            Some("py") => between(&text, "subprocess.run([\"", "\""),
            _ if text.starts_with("#!/usr/bin/env python3") => between(&text, "subprocess.run([\"", "\""),
            _ if is_shell(&text) => {
                let (found, defined) = read_script(&text);
                functions.extend(defined);
                found
            }
            _ => continue,
        };
        for program in found {
            // A path is a program of the project's own.
            if !program.contains('/') {
                programs.entry(program).or_insert_with(|| relative.clone());
            }
        }
    }
    programs.retain(|program, _| !functions.contains(program));
    assert!(programs.len() > 40, "scripts and tests were not found: {programs:?}");
    programs
}

/// All files except those that git ignores.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap().to_str().expect("a name in UTF-8");
        if path.is_symlink() || ["target", ".git", "secrets", "results", "corpus"].contains(&name) {
            continue;
        }
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn is_shell(text: &str) -> bool {
    let first = text.lines().next().unwrap_or_default();
    // The second is a file that other scripts source.
    (first.starts_with("#!") && first.ends_with("sh")) || first.starts_with("# shellcheck shell=")
}

fn between(text: &str, before: &str, after: &str) -> BTreeSet<String> {
    // This file contains what it looks for.
    let parts = text.split(before).skip(1).filter_map(|part| Some(part.split_once(after)?.0.to_owned()));
    parts.filter(|part| !part.is_empty() && !part.contains('{')).collect()
}

fn path() -> String {
    std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin"
}

fn is_in_path(program: &str) -> bool {
    path().split(':').any(|folder| Path::new(folder).join(program).is_file())
}

/// The commands of a script by name, and the functions that it defines.
fn read_script(text: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut commands = BTreeSet::new();
    // By text, because the grammar doesn't know all of bash.
    let defined =
        text.lines().filter_map(|line| line.split_once("() ")).map(|(name, _)| name.trim().to_owned());
    let mut functions: BTreeSet<String> = defined.collect();
    let tree = parse(text);
    let mut nodes = vec![tree.root_node()];
    while let Some(node) = nodes.pop() {
        if node.kind() == "command" {
            read_command(node, text, &mut commands, &mut functions);
        }
        nodes.extend((0..node.child_count()).filter_map(|index| node.child(index.try_into().unwrap())));
    }
    (commands, functions)
}

fn read_command(
    command: Node<'_>,
    text: &str,
    commands: &mut BTreeSet<String>,
    functions: &mut BTreeSet<String>,
) {
    let Some(name) = command.child_by_field_name("name") else { return };
    let Some(mut name) = literal(name, text) else { return };
    let mut cursor = command.walk();
    let arguments: Vec<Node<'_>> = command.children_by_field_name("argument", &mut cursor).collect();
    let mut is_wrapper = is_one_of(WRAPPERS, &name);
    for (index, argument) in arguments.iter().enumerate() {
        let next = || Some(&text[arguments.get(index + 1)?.byte_range()]);
        match literal(*argument, text).as_deref() {
            Some("-exec" | "-execdir") => commands.extend(next().map(str::to_owned)),
            Some("-c") if name == "bash" || name == "sh" => {
                let quoted = next().and_then(|next| next.strip_prefix('\'')?.strip_suffix('\''));
                if let Some((found, defined)) = quoted.map(read_script) {
                    commands.extend(found);
                    functions.extend(defined);
                }
            }
            Some(word) if is_wrapper && !is_option_number_or_assignment(word) => {
                commands.insert(std::mem::replace(&mut name, word.to_owned()));
                is_wrapper = is_one_of(WRAPPERS, word);
            }
            // A program named by a variable.
            None if is_wrapper => is_wrapper = false,
            _ => {}
        }
    }
    commands.insert(name);
}

fn is_one_of(list: &str, word: &str) -> bool {
    list.split_whitespace().any(|one| one == word)
}

fn is_option_number_or_assignment(word: &str) -> bool {
    word.starts_with(['-', '+']) || word.contains('=') || word.parse::<f64>().is_ok()
}

/// The word at this place, unless it's a variable.
fn literal(node: Node<'_>, text: &str) -> Option<String> {
    let word = text[node.byte_range()].trim_matches(['"', '\'']);
    (!word.is_empty() && !word.contains(['$', '`', '\n', ' ', '(', '<', '*']))
        .then(|| word.trim_start_matches('\\').to_owned())
}

fn parse(text: &str) -> Tree {
    let mut parser = Parser::new();
    parser.set_language(&tree_sitter_bash::LANGUAGE.into()).expect("the grammar fits the parser");
    parser.parse(text, None).expect("parsed")
}
