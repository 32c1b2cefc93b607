//! Questions that a run asks its user.

use crate::ids::{QuestionId, SessionId};
use crate::permission::CallRef;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Questions that a run waits for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QuestionRequest {
    /// Its identifier.
    pub id: QuestionId,
    /// The session that waits.
    #[serde(rename = "sessionID")]
    pub session_id: SessionId,
    /// What is asked: `{question, header, options: [{label, description}], multiple?, custom?}` each.
    #[schema(value_type = Vec<Object>)]
    pub questions: Vec<serde_json::Value>,
    /// The call that asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<CallRef>,
}
