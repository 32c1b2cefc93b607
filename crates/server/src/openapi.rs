//! `/doc`: what the table of routes serves, as OpenAPI 3.1.

use crate::Shared;
use axum::routing::MethodRouter;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{AdditionalProperties, ArrayBuilder, ObjectBuilder, Schema, Type};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, OneOfBuilder, OpenApi, OpenApiBuilder, PathItem, PathsBuilder, Ref,
    RefOr, Required, ResponseBuilder,
};
use utoipa::{PartialSchema, ToSchema};

/// Schemas that others refer to.
pub(crate) type Named = Vec<(String, RefOr<Schema>)>;

/// What a route answers when all is well.
pub(crate) enum Answer {
    /// JSON of this schema.
    Json(fn(&mut Named) -> RefOr<Schema>),
    /// Events, for as long as the client listens.
    Events,
    /// Nothing: 204.
    Nothing,
}

/// A field of a body: its name, its JSON type, whether it must be there.
pub(crate) type Field = (&'static str, Type, bool);

/// One route: the service and the document are both made from it.
pub(crate) struct Route {
    pub method: HttpMethod,
    pub path: &'static str,
    /// The operation's id, as clients' generators know it.
    pub operation: &'static str,
    pub summary: &'static str,
    /// The query parameters beside those that say where: the directory and the workspace.
    pub query: &'static [&'static str],
    /// Those without which there is no answer.
    pub needed: &'static [&'static str],
    pub body: &'static [Field],
    /// The statuses of the errors that are its own. Those that any request may meet are documented as the default.
    pub errors: &'static [u16],
    pub answer: Answer,
    pub handler: MethodRouter<Shared>,
}

/// One value of a type that has a name.
pub(crate) fn one<T: ToSchema>(named: &mut Named) -> RefOr<Schema> {
    T::schemas(named);
    named.push((T::name().into_owned(), T::schema()));
    Ref::from_schema_name(T::name()).into()
}

/// A list of them.
pub(crate) fn many<T: ToSchema>(named: &mut Named) -> RefOr<Schema> {
    ArrayBuilder::new().items(one::<T>(named)).into()
}

/// Some by name.
pub(crate) fn by_name<T: ToSchema>(named: &mut Named) -> RefOr<Schema> {
    ObjectBuilder::new().additional_properties(Some(AdditionalProperties::RefOr(one::<T>(named)))).into()
}

/// Any object.
pub(crate) fn object(_: &mut Named) -> RefOr<Schema> {
    ObjectBuilder::new().additional_properties(Some(AdditionalProperties::FreeForm(true))).into()
}

/// A list of any objects.
pub(crate) fn objects(named: &mut Named) -> RefOr<Schema> {
    ArrayBuilder::new().items(object(named)).into()
}

/// A list of texts.
pub(crate) fn texts(_: &mut Named) -> RefOr<Schema> {
    ArrayBuilder::new().items(ObjectBuilder::new().schema_type(Type::String)).into()
}

/// True, or false.
pub(crate) fn boolean(_: &mut Named) -> RefOr<Schema> {
    bool::schema()
}

/// The document.
pub(crate) fn document(routes: &[Route]) -> OpenApi {
    let mut named = Named::new();
    let mut paths = PathsBuilder::new();
    for route in routes {
        let item = PathItem::new(route.method.clone(), operation(route, &mut named));
        paths = paths.path(route.path, item);
    }
    let description = "OpenCode's V1 API, served by a fleet.";
    let info = InfoBuilder::new().title("Flotilla").version(wire::OPENCODE_VERSION).description(Some(description));
    let components = ComponentsBuilder::new().schemas_from_iter(named).build();
    OpenApiBuilder::new().info(info).paths(paths).components(Some(components)).build()
}

fn operation(route: &Route, named: &mut Named) -> OperationBuilder {
    let text = || Some(ObjectBuilder::new().schema_type(Type::String));
    let mut operation = OperationBuilder::new()
        .operation_id(Some(route.operation))
        .summary(Some(route.summary))
        .tag(route.path.split('/').find(|segment| !segment.is_empty()).unwrap_or_default());
    for name in path_parameters(route.path) {
        let parameter =
            ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path).required(Required::True).schema(text());
        operation = operation.parameter(parameter);
    }
    // What is of the whole server is of no directory.
    let scope: &[&str] = match route.path {
        path if path.starts_with("/global/") => &[],
        path if path.starts_with("/api/") => &["location"],
        _ => &["directory", "workspace"],
    };
    for name in scope.iter().chain(route.query) {
        let parameter = ParameterBuilder::new().name(*name).parameter_in(ParameterIn::Query).schema(text());
        operation = operation.parameter(parameter);
    }
    for name in route.needed {
        let parameter = ParameterBuilder::new()
            .name(*name)
            .parameter_in(ParameterIn::Query)
            .required(Required::True)
            .schema(text());
        operation = operation.parameter(parameter);
    }
    if !route.body.is_empty() {
        let mut schema = ObjectBuilder::new();
        for (name, kind, required) in route.body {
            schema = schema.property(*name, ObjectBuilder::new().schema_type(kind.clone()));
            if *required {
                schema = schema.required(*name);
            }
        }
        let required = route.body.iter().any(|(_, _, required)| *required);
        let body = RequestBodyBuilder::new()
            .content("application/json", ContentBuilder::new().schema(Some(schema)).build())
            .required(Some(if required { Required::True } else { Required::False }));
        operation = operation.request_body(Some(body.build()));
    }
    let good = ResponseBuilder::new().description("Success");
    let operation = match &route.answer {
        Answer::Json(schema) => {
            let content = ContentBuilder::new().schema(Some(schema(named))).build();
            operation.response("200", good.content("application/json", content))
        }
        Answer::Events => {
            operation.response("200", good.content("text/event-stream", ContentBuilder::new().schema(text()).build()))
        }
        Answer::Nothing => operation.response("204", good),
    };
    let errors = route.errors.iter().map(|status| (status.to_string(), described(*status)));
    let any = ("default".to_owned(), "Not as asked: who asks, how much, or how it is with the fleet");
    errors.chain([any]).fold(operation, |operation, (status, description)| {
        let content = ContentBuilder::new().schema(Some(error(named))).build();
        operation.response(status, ResponseBuilder::new().description(description).content("application/json", content))
    })
}

/// What an error's status says.
fn described(status: u16) -> &'static str {
    match status {
        400 => "The request is wrong",
        404 => "What it names is not there",
        _ => "The session is at work",
    }
}

/// The body of an error: one of OpenCode's two forms.
fn error(named: &mut Named) -> RefOr<Schema> {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let data = ObjectBuilder::new().additional_properties(Some(AdditionalProperties::FreeForm(true)));
    let plain = ObjectBuilder::new().property("name", text()).required("name").property("data", data);
    let tagged = ObjectBuilder::new().property("_tag", text()).required("_tag").property("message", text());
    let both = OneOfBuilder::new().item(plain).item(tagged);
    named.push(("Error".into(), both.into()));
    Ref::from_schema_name("Error").into()
}

fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

#[cfg(test)]
mod tests {
    use crate::routes;
    use serde_json::Value;
    use std::collections::BTreeSet;

    #[test]
    fn the_document_is_whole() {
        let document = serde_json::to_value(super::document(&routes::table())).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        let get = &document["paths"]["/session/{sessionID}"]["get"];
        assert_eq!(get["operationId"], "session.get");
        assert_eq!(get["parameters"][0]["name"], "sessionID");
        let patch = &document["paths"]["/session/{sessionID}"]["patch"];
        assert_eq!(patch["operationId"], "session.update");
        let mut missing = Vec::new();
        references(&document, &mut |name| {
            if document.pointer(&name[1..]).is_none() {
                missing.push(name.to_owned());
            }
        });
        assert_eq!(missing, Vec::<String>::new());
    }

    /// What is otherwise than in OpenCode's document, and why.
    const OTHERWISE: &[(&str, &str, &str)] = &[
        ("session.create", "field workspaceID", "there are no workspaces"),
        ("session.share", "status 500", "sharing is refused with 400"),
        ("session.unshare", "status 500", "sharing is refused with 400"),
        ("experimental.console.get", "status 500", "nobody is asked who could fail"),
        ("v2.fs.find", "status 401", "who may come in is asked by no operation: the default of all"),
    ];

    /// Operations of OpenCode that are not built yet.
    const NOT_YET: &[&str] = &[
        "auth.remove",
        "auth.set",
        "config.update",
        "experimental.console.listOrgs",
        "experimental.console.switchOrg",
        "experimental.controlPlane.moveSession",
        "experimental.projectCopy.generateName",
        "experimental.session.background",
        "experimental.session.list",
        "experimental.workspace.adapter.list",
        "experimental.workspace.create",
        "experimental.workspace.remove",
        "experimental.workspace.syncList",
        "experimental.workspace.warp",
        "global.config.update",
        "global.upgrade",
        "mcp.add",
        "mcp.auth.authenticate",
        "mcp.auth.callback",
        "mcp.auth.remove",
        "mcp.auth.start",
        "mcp.connect",
        "mcp.disconnect",
        "project.initGit",
        "project.update",
        "provider.oauth.authorize",
        "provider.oauth.callback",
        "pty.connect",
        "pty.connectToken",
        "pty.create",
        "pty.get",
        "pty.list",
        "pty.remove",
        "pty.shells",
        "pty.update",
        "sync.history.list",
        "sync.replay",
        "sync.start",
        "sync.steal",
        "tool.ids",
        "tool.list",
        "tui.appendPrompt",
        "tui.clearPrompt",
        "tui.control.next",
        "tui.control.response",
        "tui.executeCommand",
        "tui.openHelp",
        "tui.openModels",
        "tui.openSessions",
        "tui.openThemes",
        "tui.publish",
        "tui.selectSession",
        "tui.showToast",
        "tui.submitPrompt",
        "v2.projectCopy.create",
        "v2.projectCopy.refresh",
        "v2.projectCopy.remove",
        "vcs.apply",
        "vcs.diff",
        "vcs.diff.raw",
        "vcs.status",
        "worktree.create",
        "worktree.list",
        "worktree.remove",
        "worktree.reset",
    ];

    fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
        schema["$ref"].as_str().and_then(|name| document.pointer(&name[1..])).unwrap_or(schema)
    }

    /// The JSON type of what a schema describes; of alternatives that of the first.
    fn kind<'a>(document: &'a Value, schema: &'a Value) -> Option<&'a str> {
        let schema = resolved(document, schema);
        let each = ["allOf", "anyOf", "oneOf"].iter().find_map(|of| schema[*of].as_array()).into_iter().flatten();
        schema["type"].as_str().or_else(|| each.map(|schema| kind(document, schema)).find(Option::is_some)?)
    }

    /// What a client's generator reads of an operation: parameters, fields of the body, statuses, the form of the answer.
    fn read(document: &Value, operation: &Value) -> BTreeSet<String> {
        let mut told = BTreeSet::new();
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let must = if parameter["required"] == true { " required" } else { "" };
            told.insert(
                format!("{} parameter {}{must}", parameter["in"].as_str().unwrap(), parameter["name"]).replace('"', ""),
            );
        }
        let body = resolved(document, &operation["requestBody"]["content"]["application/json"]["schema"]);
        // Of alternatives what all of them have.
        let forms = body["anyOf"].as_array().cloned().unwrap_or_else(|| vec![body.clone()]);
        let fields = forms.iter().map(|form| {
            let form = resolved(document, form);
            let names = form["properties"].as_object().into_iter().flat_map(serde_json::Map::keys);
            let required = form["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let required = required.map(|name| format!("field {name} required"));
            names.map(|name| format!("field {name}")).chain(required).collect::<BTreeSet<_>>()
        });
        told.extend(fields.reduce(|all, form| &all & &form).unwrap_or_default());
        for (status, response) in operation["responses"].as_object().into_iter().flatten() {
            if status == "default" {
                continue;
            }
            told.insert(format!("status {status}"));
            let answer = &response["content"]["application/json"]["schema"];
            if let ("200", Some(kind)) = (status.as_str(), kind(document, answer)) {
                told.insert(format!("answers {kind}"));
            }
        }
        told
    }

    #[test]
    fn each_operation_of_opencode_is_the_same_here_or_not_built_yet() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/openapi-1.18.34.json");
        let theirs: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let ours = serde_json::to_value(super::document(&routes::table())).unwrap();
        let (mut differ, mut compared) = (Vec::new(), BTreeSet::new());
        for (path, item) in theirs["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let name = operation["operationId"].as_str().unwrap();
                let here = &ours["paths"][path][method];
                if here.is_null() != NOT_YET.contains(&name) {
                    differ.push(format!("{name}: {method} {path} is there, or not yet: which?"));
                    continue;
                }
                if here.is_null() {
                    continue;
                }
                compared.insert(format!("{method} {path}"));
                if here["operationId"] != name {
                    differ.push(format!("{method} {path} is {name}, here {}", here["operationId"]));
                }
                let (told, told_here) = (read(&theirs, operation), read(&ours, here));
                for difference in told.symmetric_difference(&told_here) {
                    let is_known = |(of, what, _): &&(&str, &str, &str)| *of == name && what == difference;
                    if !OTHERWISE.iter().any(|known| is_known(&known)) {
                        let side = if told.contains(difference) { "missing" } else { "too much" };
                        differ.push(format!("{name}: {difference} is {side}"));
                    }
                }
            }
        }
        for (path, item) in ours["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                if !compared.contains(&format!("{method} {path}")) {
                    differ.push(format!("{method} {path} is not OpenCode's"));
                }
            }
        }
        assert!(differ.is_empty(), "{}", differ.join("\n"));
        assert_eq!(compared.len(), routes::table().len());
    }

    fn references(value: &Value, found: &mut impl FnMut(&str)) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match (name.as_str(), value) {
                        ("$ref", Value::String(name)) => found(name),
                        _ => references(value, found),
                    }
                }
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
}
