//! `route`: where a record goes, by a pattern.

use std::borrow::Cow;

use regex::Regex;

use super::super::file::{Mistake, Table};
use super::super::record::{Command, Metadata, text_of};
use super::super::text::{Template, whole};
use super::super::{Cause, Set, State, StepPlace};
use super::insert::metadata;

/// A pattern for some text of the record, and the target made of its groups.
#[derive(Debug)]
pub(in crate::transform) struct Route {
    text: Text,
    regex: Regex,
    to: Template,
}

#[derive(Debug)]
enum Text {
    Metadata(Metadata),
    Field(String),
}

impl Route {
    pub(super) fn read(table: &mut Table<'_>, command: &Command) -> Result<Route, Mistake> {
        let regex = table.require_string("regex", "\"(.*)\"")?;
        let to = table.require_string("to", "\"${1}_v2\"")?;
        let text = match (table.string("from")?, table.string("field")?) {
            (None, None) => Text::Metadata(Metadata::Topic),
            (Some(from), None) => match metadata(&from, command)? {
                text @ (Metadata::Topic | Metadata::Key | Metadata::MqttTopic) => Text::Metadata(text),
                other => {
                    let message =
                        format!("a route looks at topic, key or mqtt_topic, not at {}", other.as_str());
                    return Err(Mistake::at(from.span(), message));
                }
            },
            (None, Some(field)) => Text::Field(field.into_inner()),
            (Some(_), Some(field)) => {
                return Err(Mistake::at(field.span(), "a route has `from` or `field`, not both"));
            }
        };
        let span = to.span();
        let regex = whole(regex.get_ref(), regex.span())?;
        let to = Template::read(to.get_ref(), &regex, span.clone())?;
        if let Some(fixed) = to.fixed() {
            (command.check_target)(fixed).map_err(|message| Mistake::at(span, message))?;
        }
        Ok(Route { text, regex, to })
    }

    pub(super) fn fixed_target(&self) -> Option<&str> {
        self.to.fixed()
    }

    pub(super) fn apply<'a>(
        &'a self,
        state: &mut State<'a>,
        place: &'a StepPlace,
        command: &Command,
    ) -> Result<(), Cause> {
        let target = {
            let text: Option<Cow<'_, str>> = match &self.text {
                Text::Metadata(Metadata::Topic) => Some(Cow::Borrowed(state.topic())),
                Text::Metadata(Metadata::MqttTopic) => state.record.mqtt_topic.map(Cow::Borrowed),
                Text::Metadata(_) => state.record.key.map(|key| text_of(key, "the key")).transpose()?,
                Text::Field(name) => {
                    let member = state.fields()?.last(name);
                    member.and_then(|member| Some(Cow::Owned(member.as_str()?.into_owned())))
                }
            };
            let Some(text) = text else { return Ok(()) };
            if let Some(fixed) = self.to.fixed() {
                if !self.regex.is_match(&text) {
                    return Ok(());
                }
                Cow::Borrowed(fixed)
            } else {
                let Some(found) = self.regex.captures(&text) else { return Ok(()) };
                let target = self.to.fill(&found);
                (command.check_target)(&target).map_err(|message| {
                    let target = crate::reading::Excerpt(target.as_bytes());
                    format!("it can't go to {target}: {message}")
                })?;
                Cow::Owned(target)
            }
        };
        state.changed.target = Some(Set { value: target, step: place });
        Ok(())
    }
}
