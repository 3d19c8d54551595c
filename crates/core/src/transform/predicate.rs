//! `when`: which records a step applies to.

use regex::Regex;
use toml::Spanned;

use super::fields::{JsonType, Member};
use super::file::{Mistake, Scalar, Table};
use super::number;
use super::{Cause, State, text};

/// Conditions that must all hold.
#[derive(Debug)]
pub(super) struct Predicate(Vec<Condition>);

#[derive(Debug)]
enum Condition {
    Topic(Vec<String>),
    TopicMatches(Regex),
    /// All of them are there, and not null.
    Exists(Vec<String>),
    /// None of them is there, other than as null.
    Absent(Vec<String>),
    Field(String, Test),
    Not(Predicate),
    Any(Vec<Predicate>),
}

/// What is asked of a field's value. A value of another type meets no test.
#[derive(Debug)]
enum Test {
    OneOf(Vec<Scalar>),
    Below(f64),
    AtMost(f64),
    Above(f64),
    AtLeast(f64),
    Matches(Regex),
}

impl Predicate {
    /// Reads and checks a `when`.
    pub(super) fn read(mut table: Table<'_>) -> Result<Predicate, Mistake> {
        let mut all = Vec::new();
        all.extend(table.strings("topic")?.map(Condition::Topic));
        if let Some(pattern) = table.string("topic_matches")? {
            all.push(Condition::TopicMatches(regex(&pattern)?));
        }
        all.extend(table.strings("exists")?.map(Condition::Exists));
        all.extend(table.strings("absent")?.map(Condition::Absent));
        let field = table.string("field")?;
        let tests = tests(&mut table)?;
        match field {
            Some(field) if tests.is_empty() => {
                let message = format!(
                    "`field` needs a test: equals, one_of, below, at_most, above, at_least or matches; whether it is \
                     there is exists = \"{}\"",
                    field.get_ref()
                );
                return Err(Mistake::at(field.span(), message));
            }
            Some(field) => {
                all.extend(tests.into_iter().map(|test| Condition::Field(field.get_ref().clone(), test)))
            }
            None if !tests.is_empty() => {
                let message = "a test needs `field`, such as when = { field = \"fuel\", below = 200 }";
                return Err(Mistake::at(table.span(), message));
            }
            None => {}
        }
        if let Some(inner) = table.table("not")? {
            all.push(Condition::Not(Predicate::read(inner)?));
        }
        let any = table.tables("any")?;
        if !any.is_empty() {
            all.push(Condition::Any(any.into_iter().map(Predicate::read).collect::<Result<_, _>>()?));
        }
        let span = table.span();
        table.finish()?;
        if all.is_empty() {
            let message = "`when` is empty: leave it out, or say when, such as when = { exists = \"load\" }";
            return Err(Mistake::at(span, message));
        }
        Ok(Predicate(all))
    }

    /// Whether all conditions hold for the record as earlier steps left it.
    pub(super) fn holds(&self, state: &mut State<'_>) -> Result<bool, Cause> {
        for condition in &self.0 {
            if !condition.holds(state)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Condition {
    fn holds(&self, state: &mut State<'_>) -> Result<bool, Cause> {
        Ok(match self {
            Condition::Topic(topics) => topics.iter().any(|topic| topic == state.topic()),
            Condition::TopicMatches(regex) => regex.is_match(state.topic()),
            Condition::Exists(names) => {
                let fields = state.fields()?;
                names.iter().all(|name| fields.last(name).is_some_and(is_there))
            }
            Condition::Absent(names) => {
                let fields = state.fields()?;
                !names.iter().any(|name| fields.last(name).is_some_and(is_there))
            }
            Condition::Field(name, test) => {
                state.fields()?.last(name).is_some_and(|member| test.passes(member))
            }
            Condition::Not(inner) => !inner.holds(state)?,
            Condition::Any(all) => {
                for one in all {
                    if one.holds(state)? {
                        return Ok(true);
                    }
                }
                false
            }
        })
    }
}

fn is_there(member: &Member<'_>) -> bool {
    member.json_type() != JsonType::Null
}

impl Test {
    fn passes(&self, member: &Member<'_>) -> bool {
        let number = || match member.json_type() {
            JsonType::Number => number::parse(&member.json),
            _ => None,
        };
        match self {
            Test::OneOf(values) => values.iter().any(|value| is_equal(member, value)),
            Test::Below(limit) => number().is_some_and(|number| number < *limit),
            Test::AtMost(limit) => number().is_some_and(|number| number <= *limit),
            Test::Above(limit) => number().is_some_and(|number| number > *limit),
            Test::AtLeast(limit) => number().is_some_and(|number| number >= *limit),
            Test::Matches(regex) => member.as_str().is_some_and(|text| regex.is_match(&text)),
        }
    }
}

fn is_equal(member: &Member<'_>, value: &Scalar) -> bool {
    match value {
        Scalar::Text(text) => member.as_str().is_some_and(|own| own == *text),
        Scalar::Boolean(yes) => member.json == if *yes { "true" } else { "false" },
        Scalar::Number(json) => {
            if member.json_type() != JsonType::Number {
                return false;
            }
            // Integers beyond 2^53 differ although their doubles don't.
            let integers = number::is_integer(json) && number::is_integer(&member.json);
            match (integers, json.parse::<i64>(), member.json.parse::<i64>()) {
                (true, Ok(wanted), Ok(own)) => wanted == own,
                (true, Ok(_), Err(_)) => false,
                _ => number::parse(json) == number::parse(&member.json),
            }
        }
    }
}

fn tests(table: &mut Table<'_>) -> Result<Vec<Test>, Mistake> {
    let mut tests = Vec::new();
    tests.extend(table.scalar("equals")?.map(|value| Test::OneOf(vec![value.into_inner()])));
    if let Some(values) = table.scalars("one_of")? {
        tests.push(Test::OneOf(values.into_iter().map(Spanned::into_inner).collect()));
    }
    tests.extend(table.number("below")?.map(Test::Below));
    tests.extend(table.number("at_most")?.map(Test::AtMost));
    tests.extend(table.number("above")?.map(Test::Above));
    tests.extend(table.number("at_least")?.map(Test::AtLeast));
    if let Some(pattern) = table.string("matches")? {
        tests.push(Test::Matches(regex(&pattern)?));
    }
    Ok(tests)
}

fn regex(pattern: &Spanned<String>) -> Result<Regex, Mistake> {
    text::whole(pattern.get_ref(), pattern.span())
}
