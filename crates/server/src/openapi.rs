//! `/doc`: what the table of routes serves, as OpenAPI 3.1.

use crate::Shared;
use axum::routing::MethodRouter;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{AdditionalProperties, ArrayBuilder, ObjectBuilder, Schema, Type};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, PathItem, PathsBuilder, Ref, RefOr,
    Required, ResponseBuilder,
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
    pub query: &'static [&'static str],
    pub body: &'static [Field],
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
    for name in route.query {
        let parameter = ParameterBuilder::new().name(*name).parameter_in(ParameterIn::Query).schema(text());
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
    match &route.answer {
        Answer::Json(schema) => {
            let content = ContentBuilder::new().schema(Some(schema(named))).build();
            operation.response("200", good.content("application/json", content))
        }
        Answer::Events => {
            operation.response("200", good.content("text/event-stream", ContentBuilder::new().schema(text()).build()))
        }
        Answer::Nothing => operation.response("204", good),
    }
}

fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

#[cfg(test)]
mod tests {
    use crate::routes;
    use serde_json::Value;

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
