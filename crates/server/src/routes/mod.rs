//! The table of routes.

mod command;
mod config;
mod event;
mod file;
mod instance;
mod log;
mod message;
mod permission;
mod project;
mod prompt;
mod question;
mod session;

use crate::Shared;
use crate::errors::Error;
use crate::openapi::{Answer, Field, Route, boolean, by_name, document, many, object, objects, one, texts};
use crate::{health, metrics};
use axum::Router;
use axum::handler::Handler;
use axum::response::IntoResponse;
use axum::routing::{self, MethodRouter};
use bytes::Bytes;
use http::{Method, Uri, header};
use std::sync::LazyLock;
use utoipa::openapi::path::HttpMethod;
use utoipa::openapi::schema::Type;
use wire::message::MessageWithParts;
use wire::part::Part;
use wire::permission::PermissionRequest;
use wire::question::QuestionRequest;
use wire::session::{Session, SessionStatus, Todo};

/// The errors of an operation on something that may not be there.
const ABSENT: &[u16] = &[400, 404];
/// The errors of one that is refused while the session is at work, too.
const BUSY: &[u16] = &[400, 404, 409];
const PROMPT: &[Field] = &[
    ("parts", Type::Array, true),
    ("messageID", Type::String, false),
    ("agent", Type::String, false),
    ("model", Type::Object, false),
    ("variant", Type::String, false),
    ("system", Type::String, false),
    ("tools", Type::Object, false),
    ("noReply", Type::Boolean, false),
    ("format", Type::Object, false),
];

const PART: &[Field] = &[
    ("id", Type::String, true),
    ("sessionID", Type::String, true),
    ("messageID", Type::String, true),
    ("type", Type::String, true),
];

impl Route {
    fn new(
        method: HttpMethod,
        path: &'static str,
        operation: &'static str,
        summary: &'static str,
        answer: Answer,
        handler: MethodRouter<Shared>,
    ) -> Self {
        Self { method, path, operation, summary, query: &[], needed: &[], body: &[], errors: &[400], answer, handler }
    }

    fn query(self, query: &'static [&'static str]) -> Self {
        Self { query, ..self }
    }

    fn needed(self, needed: &'static [&'static str]) -> Self {
        Self { needed, ..self }
    }

    fn errors(self, errors: &'static [u16]) -> Self {
        Self { errors, ..self }
    }

    fn body(self, body: &'static [Field]) -> Self {
        Self { body, ..self }
    }
}

type Schema = fn(&mut crate::openapi::Named) -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema>;

fn get<T: 'static>(
    path: &'static str,
    operation: &'static str,
    summary: &'static str,
    answer: Schema,
    handler: impl Handler<T, Shared>,
) -> Route {
    Route::new(HttpMethod::Get, path, operation, summary, Answer::Json(answer), routing::get(handler))
}

fn post<T: 'static>(
    path: &'static str,
    operation: &'static str,
    summary: &'static str,
    answer: Schema,
    handler: impl Handler<T, Shared>,
) -> Route {
    Route::new(HttpMethod::Post, path, operation, summary, Answer::Json(answer), routing::post(handler))
}

/// All that clients may call. What isn't here isn't there.
pub(crate) fn table() -> Vec<Route> {
    vec![
        get("/session", "session.list", "List sessions", many::<Session>, session::list)
            .query(&["scope", "path", "roots", "start", "search", "limit"]),
        post("/session", "session.create", "Create session", one::<Session>, session::create).body(&[
            ("parentID", Type::String, false),
            ("title", Type::String, false),
            ("agent", Type::String, false),
            ("model", Type::Object, false),
            ("permission", Type::Array, false),
            ("metadata", Type::Object, false),
        ]),
        get("/session/status", "session.status", "Get session status", by_name::<SessionStatus>, session::status),
        get("/session/{sessionID}", "session.get", "Get session", one::<Session>, session::get).errors(ABSENT),
        Route::new(
            HttpMethod::Patch,
            "/session/{sessionID}",
            "session.update",
            "Update session",
            Answer::Json(one::<Session>),
            routing::patch(session::update),
        )
        .body(&[
            ("title", Type::String, false),
            ("metadata", Type::Object, false),
            ("permission", Type::Array, false),
            ("time", Type::Object, false),
        ])
        .errors(ABSENT),
        Route::new(
            HttpMethod::Delete,
            "/session/{sessionID}",
            "session.delete",
            "Delete session",
            Answer::Json(boolean),
            routing::delete(session::delete),
        )
        .errors(ABSENT),
        get(
            "/session/{sessionID}/children",
            "session.children",
            "Get session children",
            many::<Session>,
            session::children,
        )
        .errors(ABSENT),
        post("/session/{sessionID}/fork", "session.fork", "Fork session", one::<Session>, session::fork)
            .body(&[("messageID", Type::String, false)])
            .errors(ABSENT),
        post("/session/{sessionID}/init", "session.init", "Initialize session", boolean, command::init)
            .body(&[
                ("modelID", Type::String, true),
                ("providerID", Type::String, true),
                ("messageID", Type::String, true),
            ])
            .errors(ABSENT),
        post("/session/{sessionID}/summarize", "session.summarize", "Summarize session", boolean, command::summarize)
            .body(&[
                ("providerID", Type::String, true),
                ("modelID", Type::String, true),
                ("auto", Type::Boolean, false),
            ])
            .errors(ABSENT),
        post("/session/{sessionID}/revert", "session.revert", "Revert message", one::<Session>, session::revert)
            .body(&[("messageID", Type::String, true), ("partID", Type::String, false)])
            .errors(BUSY),
        post(
            "/session/{sessionID}/unrevert",
            "session.unrevert",
            "Restore messages",
            one::<Session>,
            session::unrevert,
        )
        .errors(BUSY),
        post("/session/{sessionID}/share", "session.share", "Share session", one::<Session>, session::share)
            .errors(ABSENT),
        Route::new(
            HttpMethod::Delete,
            "/session/{sessionID}/share",
            "session.unshare",
            "Unshare session",
            Answer::Json(one::<Session>),
            routing::delete(session::unshare),
        )
        .errors(ABSENT),
        post(
            "/session/{sessionID}/command",
            "session.command",
            "Send command",
            one::<MessageWithParts>,
            command::command,
        )
        .body(&[
            ("command", Type::String, true),
            ("arguments", Type::String, true),
            ("messageID", Type::String, false),
            ("agent", Type::String, false),
            ("model", Type::String, false),
            ("variant", Type::String, false),
            ("parts", Type::Array, false),
        ])
        .errors(ABSENT),
        post(
            "/session/{sessionID}/shell",
            "session.shell",
            "Run shell command",
            one::<MessageWithParts>,
            command::shell,
        )
        .body(&[
            ("agent", Type::String, true),
            ("command", Type::String, true),
            ("messageID", Type::String, false),
            ("model", Type::Object, false),
        ])
        .errors(BUSY),
        get("/session/{sessionID}/todo", "session.todo", "Get session todos", many::<Todo>, session::todo)
            .errors(ABSENT),
        get("/session/{sessionID}/diff", "session.diff", "Get message diff", objects, session::diff)
            .query(&["messageID"]),
        post("/session/{sessionID}/abort", "session.abort", "Abort session", boolean, session::abort),
        get(
            "/session/{sessionID}/message",
            "session.messages",
            "Get session messages",
            many::<MessageWithParts>,
            message::list,
        )
        .query(&["limit", "before"])
        .errors(ABSENT),
        post("/session/{sessionID}/message", "session.prompt", "Send message", one::<MessageWithParts>, prompt::send)
            .body(PROMPT)
            .errors(ABSENT),
        get(
            "/session/{sessionID}/message/{messageID}",
            "session.message",
            "Get message",
            one::<MessageWithParts>,
            message::get,
        )
        .errors(ABSENT),
        Route::new(
            HttpMethod::Delete,
            "/session/{sessionID}/message/{messageID}",
            "session.deleteMessage",
            "Delete message",
            Answer::Json(boolean),
            routing::delete(message::delete),
        )
        .errors(BUSY),
        Route::new(
            HttpMethod::Patch,
            "/session/{sessionID}/message/{messageID}/part/{partID}",
            "part.update",
            "Update a part",
            Answer::Json(one::<Part>),
            routing::patch(message::put_part),
        )
        .body(PART)
        .errors(ABSENT),
        Route::new(
            HttpMethod::Delete,
            "/session/{sessionID}/message/{messageID}/part/{partID}",
            "part.delete",
            "Delete a part",
            Answer::Json(boolean),
            routing::delete(message::delete_part),
        )
        .errors(ABSENT),
        Route::new(
            HttpMethod::Post,
            "/session/{sessionID}/prompt_async",
            "session.prompt_async",
            "Send async message",
            Answer::Nothing,
            routing::post(prompt::send_async),
        )
        .body(PROMPT)
        .errors(ABSENT),
        get("/permission", "permission.list", "List pending permissions", many::<PermissionRequest>, permission::list),
        post(
            "/permission/{requestID}/reply",
            "permission.reply",
            "Respond to permission request",
            boolean,
            permission::reply,
        )
        .body(&[("reply", Type::String, true), ("message", Type::String, false)])
        .errors(ABSENT),
        post(
            "/session/{sessionID}/permissions/{permissionID}",
            "permission.respond",
            "Respond to permission",
            boolean,
            permission::respond,
        )
        .body(&[("response", Type::String, true)])
        .errors(ABSENT),
        get("/question", "question.list", "List pending questions", many::<QuestionRequest>, question::list),
        post("/question/{requestID}/reply", "question.reply", "Reply to question request", boolean, question::reply)
            .body(&[("answers", Type::Array, true)])
            .errors(ABSENT),
        post("/question/{requestID}/reject", "question.reject", "Reject question request", boolean, question::reject)
            .errors(ABSENT),
        Route::new(
            HttpMethod::Get,
            "/event",
            "event.subscribe",
            "Subscribe to events",
            Answer::Events,
            routing::get(event::of_directory),
        )
        .errors(&[]),
        Route::new(
            HttpMethod::Get,
            "/global/event",
            "global.event",
            "Get global events",
            Answer::Events,
            routing::get(event::of_all),
        ),
        get("/global/health", "global.health", "Get health", object, instance::health),
        post("/global/dispose", "global.dispose", "Dispose instance", boolean, instance::dispose_all),
        post("/instance/dispose", "instance.dispose", "Dispose instance", boolean, instance::dispose),
        get("/global/config", "global.config.get", "Get global configuration", object, config::global),
        get("/config", "config.get", "Get configuration", object, config::get),
        get("/config/providers", "config.providers", "List config providers", object, config::providers),
        get("/provider", "provider.list", "List providers", object, config::all_providers),
        get("/provider/auth", "provider.auth", "Get provider auth methods", object, instance::nothing),
        get("/agent", "app.agents", "List agents", objects, config::agents),
        get("/command", "command.list", "List commands", objects, config::commands),
        get("/skill", "app.skills", "List skills", objects, config::skills),
        get("/path", "path.get", "Get paths", object, instance::path),
        get("/vcs", "vcs.get", "Get VCS info", object, instance::vcs),
        get("/file", "file.list", "List files", objects, file::list).needed(&["path"]),
        get("/file/content", "file.read", "Read file", object, file::read).needed(&["path"]),
        get("/file/status", "file.status", "Get file status", objects, instance::none),
        get("/find", "find.text", "Find text", objects, file::text).needed(&["pattern"]),
        get("/find/file", "find.files", "Find files", texts, file::find)
            .query(&["dirs", "type", "limit"])
            .needed(&["query"]),
        get("/api/fs/find", "v2.fs.find", "Find files", object, file::find_located)
            .query(&["type", "limit"])
            .needed(&["query"]),
        get("/find/symbol", "find.symbols", "Find symbols", objects, file::symbols).needed(&["query"]),
        get("/project", "project.list", "List all projects", objects, project::list),
        get("/project/current", "project.current", "Get current project", object, project::current),
        get(
            "/project/{projectID}/directories",
            "project.directories",
            "List project directories",
            objects,
            project::directories,
        ),
        get("/lsp", "lsp.status", "Get LSP status", objects, instance::none),
        get("/formatter", "formatter.status", "Get formatter status", objects, instance::none),
        get("/mcp", "mcp.status", "Get MCP status", object, instance::nothing),
        get(
            "/experimental/capabilities",
            "experimental.capabilities.get",
            "Get experimental capabilities",
            object,
            instance::capabilities,
        ),
        get(
            "/experimental/console",
            "experimental.console.get",
            "Get active Console provider metadata",
            object,
            instance::console,
        ),
        get("/experimental/resource", "experimental.resource.list", "Get MCP resources", object, instance::nothing),
        get("/experimental/workspace", "experimental.workspace.list", "List workspaces", objects, instance::none),
        get(
            "/experimental/workspace/status",
            "experimental.workspace.status",
            "Workspace status",
            objects,
            instance::none,
        ),
        post("/log", "app.log", "Write log", boolean, log::write).body(&[
            ("service", Type::String, true),
            ("level", Type::String, true),
            ("message", Type::String, true),
            ("extra", Type::Object, false),
        ]),
    ]
}

/// The routes of the table, the document that is made from it, and what machines ask.
pub(crate) fn router() -> Router<Shared> {
    /// The same for each replica in this process.
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(document(&table()).to_json().unwrap_or_default()));
    let mut router = Router::new()
        .route(
            "/doc",
            routing::get(|| {
                let document = DOCUMENT.clone();
                async move { ([(header::CONTENT_TYPE, "application/json")], document).into_response() }
            }),
        )
        .route("/livez", routing::get(health::live))
        .route("/readyz", routing::get(health::ready))
        .route("/metrics", routing::get(metrics::show));
    for route in table() {
        router = router.route(route.path, route.handler);
    }
    router
        .fallback(|uri: Uri| async move { Error::NoRoute(uri.path().chars().take(200).collect()) })
        .method_not_allowed_fallback(|method: Method| async move {
            Error::NoMethod(method.as_str().chars().take(32).collect())
        })
}
