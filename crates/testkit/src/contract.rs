//! What OpenCode's own document says of answers and events, held against all that the clients of a world are told.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use serde_json::Value;

use crate::schema::Document;

/// The structure of the document of OpenCode 1.18.34: of the operations that Flotilla has all that programs read, of the
/// others the names.
static DOCUMENT: LazyLock<Document> = LazyLock::new(|| {
    let document = Document::new(include_str!("../../../tests/fixtures/openapi-1.18.34.json"));
    AMENDED.iter().fold(document, |document, (place, schema, _)| document.amended(place, schema))
});

/// How many violations are kept. One is enough to fail.
const KEPT: usize = 20;
/// How many characters are shown of what is not as it should be.
const SHOWN: usize = 400;

/// Where OpenCode itself is not as its document says, or we are not: the place, the schema that holds there instead, why.
const AMENDED: &[(&str, &str, &str)] = &[
    (
        "/paths/~1session~1{sessionID}~1message/post/responses/200/content/application~1json/schema/properties/info",
        r##"{"$ref": "#/components/schemas/Message"}"##,
        "A prompt with noReply is answered with the user's message.",
    ),
    (
        "/components/schemas/BadRequestError",
        r##"{"type": "object", "required": ["name", "data"], "additionalProperties": false, "properties": {
            "name": {"enum": ["BadRequest", "ConfigJsonError", "ConfigInvalidError"]},
            "data": {"type": "object", "properties": {"message": {"type": "string"}}}}}"##,
        "OpenCode was recorded to answer so to wrong configurations, too.",
    ),
    (
        "/components/schemas/InvalidRequestError",
        r##"{"anyOf": [{"$ref": "#/components/schemas/BadRequestError"}, {"type": "object", "required": ["_tag", "message"],
            "additionalProperties": false, "properties": {"_tag": {"enum": ["InvalidRequestError"]},
            "message": {"type": "string"}, "kind": {"type": "string"}}}]}"##,
        "OpenCode was recorded to answer so to wrong requests, and as its document says below /api only.",
    ),
    (
        "/components/schemas/Config/additionalProperties",
        "true",
        "A deviation of ours: unknown keys of the configuration are shown.",
    ),
    (
        "/components/schemas/GlobalEvent/required",
        r##"["payload"]"##,
        "The events of a stream itself are of no directory.",
    ),
    (
        "/components/schemas/Heartbeat",
        r##"{"type": "object", "required": ["id", "type", "properties"], "additionalProperties": false, "properties": {
            "id": {"type": "string", "pattern": "^evt_"}, "type": {"enum": ["server.heartbeat"]},
            "properties": {"type": "object"}}}"##,
        "The document has no heartbeats, every stream has.",
    ),
    ("/components/schemas/Event/anyOf/-", r##"{"$ref": "#/components/schemas/Heartbeat"}"##, "As above: heartbeats."),
    (
        "/components/schemas/GlobalEvent/properties/payload/anyOf/-",
        r##"{"$ref": "#/components/schemas/Heartbeat"}"##,
        "As above: heartbeats.",
    ),
    (
        "/components/schemas/ToolStateRunning/properties/begun",
        r##"{"type": "boolean"}"##,
        "A deviation of ours: a take-over must know whether a call may have had effects.",
    ),
];

/// The document.
pub fn document() -> &'static Document {
    &DOCUMENT
}

/// What was told and is not as the document says.
#[derive(Debug, Clone, Default)]
pub struct Contract {
    broken: Arc<Mutex<BTreeSet<String>>>,
}

impl Contract {
    /// The violations so far, which are then forgotten.
    pub fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut *self.broken.lock().unwrap_or_else(PoisonError::into_inner)).into_iter().collect()
    }

    /// Looks at an answer. What the document does not know passes: other paths, other methods, the errors of a fleet.
    pub fn see_answer(&self, method: &str, path: &str, status: u16, body: &[u8]) {
        let Some(operation) = operation(method, path) else { return };
        let name = operation["operationId"].as_str().unwrap_or_default();
        let Some(responses) = operation["responses"].as_object() else { return };
        match responses.get(&status.to_string()) {
            Some(response) => {
                let schema = &response["content"]["application/json"]["schema"];
                if schema.is_null() {
                    return;
                }
                match serde_json::from_slice(body) {
                    Ok(value) => self.report(name, DOCUMENT.violations(schema, &value), || value.to_string()),
                    Err(error) => self.report(name, vec![format!("$: no JSON: {error}")], String::new),
                }
            }
            None if status < 300 => self.report(name, vec![format!("$: the status is {status}")], String::new),
            None => {}
        }
    }

    /// Looks at an event of the stream at this path.
    pub fn see_event(&self, path: &str, event: &Value) {
        let Some(operation) = operation("GET", path) else { return };
        let schema = &operation["responses"]["200"]["content"]["text/event-stream"]["schema"];
        let kind = event.get("payload").unwrap_or(event)["type"].as_str().unwrap_or_default();
        self.report(kind, DOCUMENT.violations(schema, event), || event.to_string());
    }

    fn report(&self, what: &str, violations: Vec<String>, value: impl Fn() -> String) {
        if !violations.is_empty() {
            let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
            if broken.len() < KEPT {
                let value: String = value().chars().take(SHOWN).collect();
                broken.insert(format!("{what} {}\n    in {value}", violations.join(", ")));
            }
        }
    }
}

/// The operation that a request is for.
fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let path = path.split('?').next().unwrap_or_default();
    let given: Vec<&str> = path.split('/').collect();
    let paths = DOCUMENT.json()["paths"].as_object()?;
    let fits = |template: &str| {
        let wanted: Vec<&str> = template.split('/').collect();
        let fits = |wanted: &str, given: &str| wanted == given || (wanted.starts_with('{') && !given.is_empty());
        wanted.len() == given.len() && wanted.iter().zip(&given).all(|(wanted, given)| fits(wanted, given))
    };
    // One without parameters is meant before one with.
    let known = paths.get(path).or_else(|| paths.iter().find(|(template, _)| fits(template)).map(|(_, item)| item))?;
    known.get(method.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of_answer(method: &str, path: &str, status: u16, body: &Value) -> Vec<String> {
        let contract = Contract::default();
        contract.see_answer(method, path, status, body.to_string().as_bytes());
        contract.take_violations()
    }

    fn session() -> Value {
        json!({"id": "ses_1", "slug": "a-b", "projectID": "p", "directory": "/d", "title": "t", "version": "1",
            "time": {"created": 1, "updated": 2}})
    }

    #[test]
    fn an_answer_that_is_as_the_document_says_passes_and_each_damage_is_reported() {
        let path = "/session/ses_1?directory=d";
        assert_eq!(of_answer("GET", path, 200, &session()), Vec::<String>::new());
        type Damage = fn(&mut Value);
        let damages: [(&str, Damage); 4] = [
            ("session.get $.directory is missing", |s| drop(s.as_object_mut().unwrap().remove("directory"))),
            ("session.get $.title: 5 is no", |s| s["title"] = json!(5)),
            ("session.get $.time.created is missing", |s| s["time"] = json!({"updated": 2})),
            ("session.get $.id: \"msg_1\" is not like", |s| s["id"] = json!("msg_1")),
        ];
        for (expected, damage) in damages {
            let mut session = session();
            damage(&mut session);
            let found = of_answer("GET", path, 200, &session);
            assert!(found.len() == 1 && found[0].starts_with(expected), "{expected}: {found:?}");
        }
        assert_eq!(of_answer("GET", path, 201, &session()).len(), 1, "a status that nobody expects");
        assert_eq!(of_answer("GET", path, 404, &json!({"name": "NotFoundError"})).len(), 1, "an error without data");
        assert_eq!(of_answer("GET", "/session/status", 200, &json!({"ses_1": {"type": "idle"}})), Vec::<String>::new());
        assert_eq!(of_answer("GET", "/session/status", 200, &json!({"ses_1": {"type": "lazy"}})).len(), 1);
        assert_eq!(of_answer("GET", "/livez", 200, &json!({})), Vec::<String>::new());
    }

    #[test]
    fn every_amendment_has_its_reason() {
        assert!(AMENDED.iter().all(|(place, _, reason)| place.starts_with('/') && reason.len() > 10));
        assert!(document().json()["paths"].is_object());
    }

    #[test]
    fn an_event_that_is_as_the_document_says_passes_and_each_damage_is_reported() {
        let seen = |path: &str, event: Value| {
            let contract = Contract::default();
            contract.see_event(path, &event);
            contract.take_violations().len()
        };
        let event = |properties: Value| json!({"id": "evt_1", "type": "session.idle", "properties": properties});
        assert_eq!(seen("/event?directory=d", event(json!({"sessionID": "ses_1"}))), 0);
        assert_eq!(seen("/event", event(json!({}))), 1);
        assert_eq!(seen("/event", event(json!({"sessionID": 1}))), 1);
        assert_eq!(seen("/event", json!({"id": "evt_1", "type": "session.slept", "properties": {}})), 1);
        let enveloped = |payload: Value| json!({"directory": "/d", "payload": payload});
        assert_eq!(seen("/global/event", enveloped(event(json!({"sessionID": "ses_1"})))), 0);
        assert_eq!(seen("/global/event", enveloped(event(json!({})))), 1);
        assert_eq!(seen("/global/event", event(json!({"sessionID": "ses_1"}))), 1);
    }
}
