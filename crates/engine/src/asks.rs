//! Permissions and questions that runs wait for: a record in the store, answered from any replica.

pub(crate) mod told;

use crate::api::{EngineError, RequestName, Scope};
use crate::commit::{Committer, Decision, Under, body};
use crate::engine::{Engine, blocking};
use crate::named::Acting;
use crate::run::Run;
use crate::step::Scene;
use coordination::SessionKey;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;
use storage::{Record, StoreError, TenantStore, Write};
use tools::ToolError;
use wire::event::Happened;
use wire::ids::{PermissionId, QuestionId, SessionId};
use wire::permission::{Action, CallRef, PermissionRequest, Reply, Rule};
use wire::question::QuestionRequest;
use wire::tenant::Tenant;

/// How often an approval is written again when another holder got between; the lock keeps them apart.
const APPROVALS: usize = 20;

/// What a run waits for, as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct StoredAsk {
    /// Orders asks: milliseconds since the epoch.
    at: u64,
    #[serde(flatten)]
    about: About,
    /// The call that asks, also where clients are not shown it: a new runner finds its ask by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    call: Option<CallRef>,
    /// None while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<Answer>,
    /// Fields that a later version added.
    #[serde(flatten)]
    extra: wire::Extra,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum About {
    Permission(PermissionRequest),
    Question(QuestionRequest),
}

impl About {
    /// True if both ask for the same; who asks and under which id does not count.
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Permission(a), Self::Permission(b)) => a.permission == b.permission && a.patterns == b.patterns,
            (Self::Question(a), Self::Question(b)) => a.questions == b.questions,
            _ => false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Answer {
    Reply {
        reply: Reply,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    Answers {
        answers: Vec<Vec<String>>,
    },
    Dismissed,
}

impl StoredAsk {
    fn id(&self) -> &str {
        match &self.about {
            About::Permission(request) => request.id.as_str(),
            About::Question(request) => request.id.as_str(),
        }
    }

    fn session(&self) -> &SessionId {
        match &self.about {
            About::Permission(request) => &request.session_id,
            About::Question(request) => &request.session_id,
        }
    }

    fn permission(&self) -> Option<&PermissionRequest> {
        match &self.about {
            About::Permission(request) => Some(request),
            About::Question(_) => None,
        }
    }

    /// True where a request that is sent again finds its own answer here: an earlier sending came as far as the ask, and no
    /// further.
    fn is_answered_before(&self, is_again: bool, answer: &Answer) -> bool {
        is_again && self.answer.as_ref() == Some(answer)
    }

    fn record(&self) -> Record {
        Record::Ask { session: self.session().clone(), id: self.id().to_owned() }
    }

    /// What clients are told when it is asked.
    fn raised_event(&self) -> Happened {
        match &self.about {
            About::Permission(request) => wire::event::permission_asked(request),
            About::Question(request) => wire::event::question_asked(request),
        }
    }

    /// What clients are told when the run that asked ends without an answer.
    pub(crate) fn withdrawn_event(&self) -> Happened {
        match &self.about {
            About::Permission(request) => {
                wire::event::permission_replied(&request.session_id, &request.id, Reply::Reject)
            }
            About::Question(request) => wire::event::question_rejected(&request.session_id, &request.id),
        }
    }
}

fn parse(bodies: Vec<Vec<u8>>) -> Vec<StoredAsk> {
    let mut asks: Vec<StoredAsk> = bodies.iter().filter_map(|body| serde_json::from_slice(body).ok()).collect();
    asks.sort_by(|a, b| (a.at, a.id()).cmp(&(b.at, b.id())));
    asks
}

/// The asks of a session that nobody has answered, oldest first.
pub(crate) fn open_asks(at: &Under<'_>) -> Result<Vec<StoredAsk>, EngineError> {
    Ok(parse(at.store.asks(at.id)?).into_iter().filter(|ask| ask.answer.is_none()).collect())
}

/// Removes all asks of a session: goes with the commit that settles its tickets.
pub(crate) fn withdrawn(at: &Under<'_>) -> Result<Vec<Write>, EngineError> {
    Ok(parse(at.store.asks(at.id)?).iter().map(|ask| Write::Remove(ask.record())).collect())
}

/// What was approved by `always` in a project.
fn approvals(store: &TenantStore, project: &str) -> Result<Vec<Rule>, EngineError> {
    let stored = store.read(&Record::Approvals { project: project.to_owned() })?;
    Ok(stored.and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default())
}

/// Evaluates the rules for what a call wants, and asks if they say so; `is_shown`: clients are told the call. Returns when
/// it is allowed.
pub(crate) async fn ask(
    run: &Run,
    scene: &Scene,
    wanted: tools::Ask,
    call: CallRef,
    is_shown: bool,
) -> Result<(), ToolError> {
    let (store, session) = (run.engine.tenant_store(&run.handle.key.tenant), scene.session.id.clone());
    let (own, approved, known) = blocking(move || {
        let session = store.session(&session)?;
        let approved = approvals(&store, &session.project_id)?;
        Ok((session.permission.unwrap_or_default(), approved, parse(store.asks(&session.id)?)))
    })
    .await
    .map_err(failed)?;
    // What a former runner asked is answered by people, whatever was allowed since: they may have said no.
    let was_asked = known.iter().filter(|ask| ask.call.as_ref() == Some(&call)).filter_map(StoredAsk::permission);
    let mut must_ask =
        was_asked.into_iter().any(|asked| asked.permission == wanted.permission && asked.patterns == wanted.patterns);
    let rules: [&[Rule]; 3] = [&scene.agent.permission, &own, &approved];
    for pattern in &wanted.patterns {
        match agents::permission::evaluate(&wanted.permission, pattern, &rules).action {
            Action::Allow => {}
            Action::Ask => must_ask = true,
            Action::Deny => {
                let relevant = agents::permission::relevant(&wanted.permission, &rules);
                let rules = serde_json::to_string(&relevant).unwrap_or_default();
                return Err(ToolError::Denied(format!(
                    "A permission rule forbids this tool call. The rules that apply here: {rules}"
                )));
            }
        }
    }
    if !must_ask {
        return Ok(());
    }
    let request = PermissionRequest {
        id: run.engine.0.ids.permission(),
        session_id: scene.session.id.clone(),
        permission: wanted.permission,
        patterns: wanted.patterns,
        metadata: wanted.metadata,
        always: wanted.always,
        tool: is_shown.then(|| call.clone()),
    };
    match raise(run, About::Permission(request), call).await.map_err(failed)? {
        Some(Answer::Reply { reply: Reply::Reject, message }) => {
            Err(ToolError::Rejected { feedback: message.filter(|message| !message.is_empty()) })
        }
        Some(Answer::Reply { .. }) => Ok(()),
        _ => Err(ToolError::Aborted),
    }
}

/// Asks the user what a call wants to know, and returns the answers to each question.
pub(crate) async fn ask_questions(
    run: &Run,
    scene: &Scene,
    questions: Vec<Value>,
    call: CallRef,
) -> Result<Vec<Vec<String>>, ToolError> {
    let request = QuestionRequest {
        id: run.engine.0.ids.question(),
        session_id: scene.session.id.clone(),
        questions,
        tool: Some(call.clone()),
    };
    match raise(run, About::Question(request), call).await.map_err(failed)? {
        Some(Answer::Answers { answers }) => Ok(answers),
        Some(Answer::Dismissed) => Err(ToolError::Dismissed),
        _ => Err(ToolError::Aborted),
    }
}

fn failed(error: EngineError) -> ToolError {
    match error {
        EngineError::Lost => ToolError::Lost,
        error => ToolError::Failed(error.to_string()),
    }
}

/// Stores an ask and publishes it, unless a former runner of the same call did; then waits for its answer.
async fn raise(run: &Run, about: About, call: CallRef) -> Result<Option<Answer>, EngineError> {
    let (store, session) = (run.engine.tenant_store(&run.handle.key.tenant), run.handle.key.session.clone());
    let known = blocking(move || Ok(parse(store.asks(&session)?))).await?;
    let mine = known.into_iter().find(|ask| ask.call.as_ref() == Some(&call) && ask.about.is_like(&about));
    let (ask, is_out) = match mine {
        Some(ask) => {
            told::found(run, &ask).await?;
            (ask, true)
        }
        None => {
            let ask =
                StoredAsk { at: run.engine.now_ms(), about, call: Some(call), answer: None, extra: wire::Extra::new() };
            run.commit(vec![Write::PutNew(ask.record(), body(&ask)?)]).await?;
            let is_out = told::raised(run, &ask).await?;
            (ask, is_out)
        }
    };
    let answer = wait_for_answer(run, ask.record()).await?;
    if let Some(answer) = answer.as_ref().filter(|_| !is_out) {
        told::answered(run, &ask, answer).await;
    }
    Ok(answer)
}

/// Waits until an ask is answered, or gone. Woken by a poke; looks once a second without.
async fn wait_for_answer(run: &Run, record: Record) -> Result<Option<Answer>, EngineError> {
    let waiter = run.engine.0.waiters.join(&run.handle.key);
    loop {
        let woken = waiter.notify.notified();
        tokio::pin!(woken);
        woken.as_mut().enable();
        let (store, record) = (run.engine.tenant_store(&run.handle.key.tenant), record.clone());
        let stored = blocking(move || store.read(&record).map_err(EngineError::from)).await?;
        match stored.and_then(|body| serde_json::from_slice::<StoredAsk>(&body).ok()) {
            None => return Ok(None),
            Some(StoredAsk { answer: Some(answer), .. }) => return Ok(Some(answer)),
            Some(_) => {
                let _ = tokio::time::timeout(Duration::from_secs(1), woken).await;
            }
        }
    }
}

impl Engine {
    /// The permissions that runs in this directory wait for, oldest first.
    pub async fn permissions(&self, scope: &Scope) -> Result<Vec<PermissionRequest>, EngineError> {
        let asks = self.asks_in(scope).await?;
        let open = asks.into_iter().filter_map(|ask| match ask.about {
            About::Permission(request) => Some(request),
            About::Question(_) => None,
        });
        Ok(open.collect())
    }

    /// The questions that runs in this directory wait for, oldest first.
    pub async fn questions(&self, scope: &Scope) -> Result<Vec<QuestionRequest>, EngineError> {
        let asks = self.asks_in(scope).await?;
        let open = asks.into_iter().filter_map(|ask| match ask.about {
            About::Question(request) => Some(request),
            About::Permission(_) => None,
        });
        Ok(open.collect())
    }

    async fn asks_in(&self, scope: &Scope) -> Result<Vec<StoredAsk>, EngineError> {
        let directory = scope.directory.to_string_lossy().into_owned();
        let mut asks = self.open_asks(&scope.tenant).await?;
        let store = self.tenant_store(&scope.tenant);
        blocking(move || {
            asks.retain(|ask| store.session(ask.session()).is_ok_and(|session| session.directory == directory));
            Ok(asks)
        })
        .await
    }

    /// The open asks of all sessions that are at work: those with a marker.
    async fn open_asks(&self, tenant: &Tenant) -> Result<Vec<StoredAsk>, EngineError> {
        let store = self.tenant_store(tenant);
        blocking(move || {
            let mut sessions: Vec<SessionId> = store.markers()?.into_iter().map(|marker| marker.session).collect();
            sessions.sort();
            sessions.dedup();
            let mut asks = Vec::new();
            for session in sessions {
                asks.extend(parse(store.asks(&session)?).into_iter().filter(|ask| ask.answer.is_none()));
            }
            asks.sort_by(|a, b| (a.at, a.id()).cmp(&(b.at, b.id())));
            Ok(asks)
        })
        .await
    }

    /// Answers a permission request; `always` also approves its patterns for every session of the project.
    ///
    /// Errors: `PermissionNotFound` if it is unknown or was answered before.
    pub async fn reply_permission(
        &self,
        tenant: &Tenant,
        id: &PermissionId,
        reply: Reply,
        message: Option<String>,
        name: Option<&RequestName>,
    ) -> Result<(), EngineError> {
        let unknown = || EngineError::PermissionNotFound(id.to_string());
        let about = async { self.session_of_ask(tenant, id.as_str()).await?.ok_or_else(unknown) };
        self.once(tenant, name, about, |acting| self.reply_once(tenant, id, reply, message, acting)).await
    }

    /// The session whose run waits for this answer.
    async fn session_of_ask(&self, tenant: &Tenant, id: &str) -> Result<Option<SessionId>, EngineError> {
        let asks = self.open_asks(tenant).await?;
        Ok(asks.into_iter().find(|ask| ask.id() == id).map(|ask| ask.session().clone()))
    }

    async fn reply_once(
        &self,
        tenant: &Tenant,
        id: &PermissionId,
        reply: Reply,
        message: Option<String>,
        acting: Acting,
    ) -> Result<(), EngineError> {
        let unknown = || EngineError::PermissionNotFound(id.to_string());
        let key = SessionKey::new(tenant.clone(), acting.session);
        // Taken before the session's own, by everybody: no two wait for each other.
        let _approving = match reply {
            Reply::Always => {
                let project = self.session(tenant, &key.session).await?.project_id;
                Some(self.lock_record(&format!("approvals/{tenant}/{project}")).await?)
            }
            Reply::Once | Reply::Reject => None,
        };
        let (wanted, request) = (id.to_string(), id.clone());
        let (_, (session, answered)) = self
            .head_commit(&key, Committer::Request, move |head, at| {
                let session = at.session()?;
                let asks = parse(at.store.asks(at.id)?);
                let it = asks.iter().find(|ask| ask.id() == wanted);
                let asked = it.and_then(StoredAsk::permission);
                // An earlier sending was the answer; its replica may not have lived to tell or to note it. The run may have gone
                // on with it and be over, and the ask with it.
                if !head.apply_once(acting.name.as_deref()) || (acting.is_again && it.is_none()) {
                    return Ok(Decision::Leave((session, Some(vec![(true, request.clone(), reply)]))));
                }
                let is_given = it.is_some_and(|ask| {
                    ask.is_answered_before(acting.is_again, &Answer::Reply { reply, message: message.clone() })
                });
                let is_open = it.is_some_and(|ask| ask.answer.is_none());
                let Some(asked) = asked.filter(|_| is_open || is_given) else {
                    return Ok(Decision::Leave((session, None)));
                };
                let mut writes = Vec::new();
                let mut approved = approvals(at.store, &session.project_id)?;
                if reply == Reply::Always {
                    // Lands before the answer: whoever sees the answer sees the approval.
                    approved = approve(at.store, &session.project_id, asked)?;
                }
                let mut answered = Vec::new();
                if is_given {
                    answered.push((true, asked.id.clone(), reply));
                }
                for ask in asks.iter().filter(|ask| ask.answer.is_none()) {
                    let is_it = ask.id() == wanted;
                    let reply = match (reply, ask.permission()) {
                        _ if is_it => reply,
                        (Reply::Reject, Some(_)) => Reply::Reject,
                        (Reply::Always, Some(other)) if is_allowed(other, &approved) => Reply::Always,
                        _ => continue,
                    };
                    let message = message.clone().filter(|_| is_it);
                    let closed = StoredAsk { answer: Some(Answer::Reply { reply, message }), ..ask.clone() };
                    writes.push(Write::Put(closed.record(), body(&closed)?));
                    answered.extend(ask.permission().map(|request| (is_it, request.id.clone(), reply)));
                }
                // The request itself is told first.
                answered.sort_by_key(|(is_it, _, _)| !is_it);
                Ok(Decision::Write(writes, (session, Some(answered))))
            })
            .await?;
        let answered = answered.ok_or_else(unknown)?;
        let origin = self.origin(&key, &session, None);
        for (_, request, reply) in &answered {
            self.publish(&origin, wire::event::permission_replied(&key.session, request, *reply), None).await;
        }
        self.poke(&key).await;
        Ok(())
    }

    /// Answers questions.
    ///
    /// Errors: `QuestionNotFound` if they are unknown or were answered before.
    pub async fn reply_question(
        &self,
        tenant: &Tenant,
        id: &QuestionId,
        answers: Vec<Vec<String>>,
        name: Option<&RequestName>,
    ) -> Result<(), EngineError> {
        self.answer_question(tenant, id, Answer::Answers { answers }, name).await
    }

    /// Dismisses questions.
    ///
    /// Errors: `QuestionNotFound` if they are unknown or were answered before.
    pub async fn reject_question(
        &self,
        tenant: &Tenant,
        id: &QuestionId,
        name: Option<&RequestName>,
    ) -> Result<(), EngineError> {
        self.answer_question(tenant, id, Answer::Dismissed, name).await
    }

    async fn answer_question(
        &self,
        tenant: &Tenant,
        id: &QuestionId,
        answer: Answer,
        name: Option<&RequestName>,
    ) -> Result<(), EngineError> {
        let unknown = || EngineError::QuestionNotFound(id.to_string());
        let about = async { self.session_of_ask(tenant, id.as_str()).await?.ok_or_else(unknown) };
        self.once(tenant, name, about, |acting| self.answer_once(tenant, id, answer, acting)).await
    }

    async fn answer_once(
        &self,
        tenant: &Tenant,
        id: &QuestionId,
        answer: Answer,
        acting: Acting,
    ) -> Result<(), EngineError> {
        let key = SessionKey::new(tenant.clone(), acting.session);
        let (wanted, given) = (id.to_string(), answer.clone());
        let (_, (session, is_answered)) = self
            .head_commit(&key, Committer::Request, move |head, at| {
                let session = at.session()?;
                let asked = parse(at.store.asks(at.id)?).into_iter().find(|ask| ask.id() == wanted);
                // As with a reply to a permission.
                if !head.apply_once(acting.name.as_deref()) || (acting.is_again && asked.is_none()) {
                    return Ok(Decision::Leave((session, true)));
                }
                let Some(ask) = asked.filter(|ask| matches!(ask.about, About::Question(_))) else {
                    return Ok(Decision::Leave((session, false)));
                };
                if ask.is_answered_before(acting.is_again, &given) {
                    return Ok(Decision::Write(Vec::new(), (session, true)));
                }
                if ask.answer.is_some() {
                    return Ok(Decision::Leave((session, false)));
                }
                let closed = StoredAsk { answer: Some(given.clone()), ..ask.clone() };
                let write = Write::Put(closed.record(), body(&closed)?);
                Ok(Decision::Write(vec![write], (session, true)))
            })
            .await?;
        if !is_answered {
            return Err(EngineError::QuestionNotFound(id.to_string()));
        }
        let happened = match &answer {
            Answer::Answers { answers } => wire::event::question_replied(&key.session, id, answers),
            _ => wire::event::question_rejected(&key.session, id),
        };
        let origin = self.origin(&key, &session, None);
        self.publish(&origin, happened, None).await;
        self.poke(&key).await;
        Ok(())
    }

    /// Tells the owner of a session to look at the store; one that is not reached looks once a second.
    pub(crate) async fn poke(&self, key: &SessionKey) {
        self.0.waiters.wake(key);
        if let Err(error) = self.0.ports.leases.poke(key, false).await {
            tracing::info!(session = %key.session, %error, "the owner was not told");
        }
    }
}

/// Adds what a request asked to be allowed for good to its project's approvals, under their guard. Done again, it adds
/// nothing. Returns them all.
fn approve(store: &TenantStore, project: &str, asked: &PermissionRequest) -> Result<Vec<Rule>, EngineError> {
    let record = Record::Approvals { project: project.to_owned() };
    for _ in 0..APPROVALS {
        let guard = match store.take_shared(&record) {
            Err(StoreError::Contended { .. }) => continue,
            guard => guard?,
        };
        let stored = guard.read()?;
        // As values: what a later version added to a rule stays.
        let mut all: Vec<Value> = match stored {
            Some(body) => serde_json::from_slice(&body).map_err(|error| EngineError::Store(error.to_string()))?,
            None => Vec::new(),
        };
        let mut approved: Vec<Rule> = all.iter().filter_map(|rule| serde_json::from_value(rule.clone()).ok()).collect();
        for pattern in &asked.always {
            let rule = Rule::new(&asked.permission, pattern, Action::Allow);
            if !approved.iter().any(|known| known.says_the_same(&rule)) {
                all.push(json!(rule));
                approved.push(rule);
            }
        }
        match guard.commit(body(&all)?) {
            Err(StoreError::Fenced) => {}
            written => return Ok(written.map(|()| approved)?),
        }
    }
    Err(EngineError::Unavailable("the approvals of the project are contended".into()))
}

fn is_allowed(request: &PermissionRequest, approved: &[Rule]) -> bool {
    let allowed = |pattern: &String| {
        agents::permission::evaluate(&request.permission, pattern, &[approved]).action == Action::Allow
    };
    request.patterns.iter().all(allowed)
}

impl From<ToolError> for EngineError {
    fn from(error: ToolError) -> Self {
        match error {
            ToolError::Lost => Self::Lost,
            error => Self::BadRequest(error.to_string()),
        }
    }
}

/// A read of what may be gone.
pub(crate) fn found<T>(result: Result<T, StoreError>) -> Result<Option<T>, EngineError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::NotFound | StoreError::Deleted) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
