//! `question`: asks the user.

use crate::{Call, Output, Tool, ToolError, Writes, arguments};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The tool `question`.
pub(crate) struct Question;

#[derive(Deserialize)]
struct Arguments {
    questions: Vec<Asked>,
}

/// What clients show: fields that they do not know are left out.
#[derive(Deserialize, Serialize)]
struct Asked {
    question: String,
    header: String,
    options: Vec<Choice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    multiple: Option<bool>,
}

#[derive(Deserialize, Serialize)]
struct Choice {
    label: String,
    description: String,
}

#[async_trait]
impl Tool for Question {
    fn name(&self) -> &'static str {
        "question"
    }

    fn description(&self) -> String {
        "Asks the user and waits for the answer: when a wish is unclear, or when a decision is the user's to make.\n\
         Each question offers some options, the one that you would choose first, marked as recommended. The user can \
         always type another answer, so there is no need of an option for that. With `multiple` several options may be \
         chosen. The answers are the labels of the chosen options, or what was typed."
            .into()
    }

    fn parameters(&self) -> Value {
        let text = |description: &str| json!({ "type": "string", "description": description });
        let choice = json!({
            "type": "object",
            "properties": {
                "label": text("What is shown to be chosen, one to five words"),
                "description": text("What choosing it means"),
            },
            "required": ["label", "description"],
        });
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "questions": {
                    "type": "array",
                    "description": "What to ask",
                    "items": {
                        "type": "object",
                        "properties": {
                            "question": text("The question, as a whole sentence"),
                            "header": text("Its subject in a word or two, up to 30 characters"),
                            "options": { "type": "array", "description": "The answers to choose from", "items": choice },
                            "multiple": { "type": "boolean", "description": "Several options may be chosen" },
                        },
                        "required": ["question", "header", "options"],
                    },
                },
            },
            "required": ["questions"],
        })
    }

    fn writes(&self) -> Writes {
        Writes::Nothing
    }

    async fn run(&self, input: Value, call: &Call) -> Result<Output, ToolError> {
        let Arguments { questions } = arguments::parse(self.name(), input)?;
        let shown = questions.iter().map(|asked| json!(asked)).collect();
        let answers = call.host.ask_questions(shown).await?;
        let pairs = questions.iter().enumerate().map(|(at, asked)| {
            let given = answers.get(at).filter(|given| !given.is_empty());
            let answer = given.map_or_else(|| "Unanswered".into(), |given| given.join(", "));
            format!("\"{}\"=\"{answer}\"", asked.question)
        });
        let pairs: Vec<String> = pairs.collect();
        let plural = if questions.len() > 1 { "s" } else { "" };
        Ok(Output {
            title: format!("Asked {} question{plural}", questions.len()),
            output: format!("The user answered: {}.", pairs.join(", ")),
            metadata: json!({ "answers": answers }),
            attachments: None,
        })
    }
}
