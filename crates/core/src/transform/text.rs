//! Patterns, and templates that refer to their groups.

use std::ops::Range;

use regex::{Captures, Regex};

use super::file::Mistake;

/// A pattern for a whole text.
pub(super) fn whole(pattern: &str, span: Range<usize>) -> Result<Regex, Mistake> {
    // By itself first, so that the message shows what the user wrote, and so that `a)(b` isn't taken.
    Regex::new(pattern).and_then(|_| Regex::new(&format!("^(?:{pattern})$"))).map_err(|error| {
        // Its message draws the pattern over several lines; the last one has the reason.
        let message = error.to_string();
        let reason = message.lines().last().unwrap_or_default();
        let reason = reason.strip_prefix("error: ").unwrap_or(reason);
        Mistake::at(span, format!("`{pattern}` is no regular expression: {reason}"))
    })
}

/// A text with references to groups: `$1`, `$name`, `${name}`; `$$` is a dollar sign.
#[derive(Debug)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug)]
enum Part {
    Text(String),
    Group(usize),
}

impl Template {
    /// Reads a template for the groups of `regex`.
    pub(super) fn read(template: &str, regex: &Regex, span: Range<usize>) -> Result<Template, Mistake> {
        let mut parts = Vec::new();
        let mut rest = template;
        while let Some(at) = rest.find('$') {
            parts.push(Part::Text(rest[..at].to_owned()));
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                parts.push(Part::Text("$".to_owned()));
                rest = after;
                continue;
            }
            let (name, after) = match rest.strip_prefix('{') {
                Some(braced) => braced
                    .split_once('}')
                    .ok_or_else(|| Mistake::at(span.clone(), "`${` without `}`; a dollar sign is `$$`"))?,
                None => {
                    let ends = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
                    rest.split_at(rest.find(ends).unwrap_or(rest.len()))
                }
            };
            parts.push(Part::Group(group(regex, name).ok_or_else(|| {
                let message = format!(
                    "the pattern has no group `{name}`; in front of letters, digits or _ write ${{1}} for group 1, \
                     and $$ for a dollar sign"
                );
                Mistake::at(span.clone(), message)
            })?));
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Template(parts))
    }

    /// The text, if there is no reference in it.
    pub(super) fn fixed(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text with the groups of this match. A group that took no part is empty.
    pub(super) fn fill(&self, found: &Captures<'_>) -> String {
        let mut filled = String::with_capacity(64);
        for part in &self.0 {
            filled.push_str(match part {
                Part::Text(text) => text,
                Part::Group(group) => found.get(*group).map_or("", |group| group.as_str()),
            });
        }
        filled
    }
}

fn group(regex: &Regex, name: &str) -> Option<usize> {
    match name.parse::<usize>() {
        Ok(number) => (number < regex.captures_len()).then_some(number),
        Err(_) => regex.capture_names().position(|own| own == Some(name)),
    }
}
