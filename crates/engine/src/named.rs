//! Requests that bear a name: sent again, by their client or by a balancer, they act once.
//!
//! The name is made durable, with the ids that the request will use, before it acts. Who finds it there goes on with the
//! same ids, or answers what was recorded.

use crate::api::{EngineError, RequestName};
use crate::commit::body;
use crate::engine::{Engine, blocking};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::future::Future;
use storage::Record;
use wire::ids::{MessageId, PartId, SessionId};
use wire::tenant::Tenant;

/// What a name stands for, as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Named {
    /// The session that the request is about, or makes.
    pub session: SessionId,
    /// The message that a prompt is stored as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<MessageId>,
    /// The ids of its parts, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartId>,
    /// Drawn at random by whoever made the record: tells one sending of a request from the next.
    #[serde(default)]
    pub by: u64,
    /// What was asked; none where a message's id is the name, whose ticket tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_hash: Option<String>,
}

/// What a request acts with.
pub(crate) struct Acting {
    /// The session that it is about, or makes.
    pub session: SessionId,
    /// The name under which its effect is noted in the session's head.
    pub name: Option<String>,
    /// True if the name was there before: an earlier sending may have acted.
    pub is_again: bool,
}

/// A name that is safe in a path.
pub(crate) fn hash_of(words: &[&str]) -> String {
    let mut hash = Sha256::new();
    for word in words {
        hash.update((word.len() as u64).to_le_bytes());
        hash.update(word);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Engine {
    /// Acts once for a name. `about` tells the session, and refuses what makes no sense before anything is written; `act` is
    /// called again, by whoever is sent the request again, until its outcome is recorded.
    ///
    /// Errors: `KeyReused` if the name stands for another request; those of `about` and `act`, which are not recorded.
    pub(crate) async fn once<T, About, Act>(
        &self,
        tenant: &Tenant,
        name: Option<&RequestName>,
        about: About,
        act: impl FnOnce(Acting) -> Act,
    ) -> Result<T, EngineError>
    where
        T: Serialize + DeserializeOwned,
        About: Future<Output = Result<SessionId, EngineError>>,
        Act: Future<Output = Result<T, EngineError>>,
    {
        let Some(name) = name else {
            return act(Acting { session: about.await?, name: None, is_again: false }).await;
        };
        let known: Option<Named> = self.read_json(tenant, Record::Key { hash: name.hash.clone() }).await?;
        let (named, is_again) = match known {
            Some(known) => (known, true),
            None => {
                let body_hash = Some(name.body_hash.clone());
                let by = self.0.ids.bits();
                let own = Named { session: about.await?, message: None, parts: Vec::new(), by, body_hash };
                let there = self.claim_name(tenant, &name.hash, &own).await?;
                let is_again = there.by != own.by;
                (there, is_again)
            }
        };
        if named.body_hash.as_ref() != Some(&name.body_hash) {
            return Err(EngineError::KeyReused);
        }
        let answer = Record::Answer { hash: name.hash.clone() };
        if let Some(recorded) = self.read_json(tenant, answer.clone()).await? {
            return Ok(recorded);
        }
        let done = act(Acting { session: named.session, name: Some(name.hash.clone()), is_again }).await?;
        let (store, bytes) = (self.tenant_store(tenant), body(&done)?);
        blocking(move || Ok(store.put_if_absent(&answer, &bytes)?)).await?;
        Ok(done)
    }

    /// Makes a name durable, unless it is there. Returns what it stands for.
    pub(crate) async fn claim_name(&self, tenant: &Tenant, hash: &str, own: &Named) -> Result<Named, EngineError> {
        let (store, bytes, hash) = (self.tenant_store(tenant), body(own)?, hash.to_owned());
        let there = blocking(move || Ok(store.put_if_absent(&Record::Key { hash }, &bytes)?)).await?;
        serde_json::from_slice(&there).map_err(|error| EngineError::Store(error.to_string()))
    }

    pub(crate) async fn read_json<T: DeserializeOwned>(
        &self,
        tenant: &Tenant,
        record: Record,
    ) -> Result<Option<T>, EngineError> {
        let store = self.tenant_store(tenant);
        let Some(bytes) = blocking(move || Ok(store.read(&record)?)).await? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| EngineError::Store(error.to_string()))
    }
}
