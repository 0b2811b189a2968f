//! Images that come to this host in an archive: docker load, docker import.

use std::fs::File;
use std::sync::Arc;

use axum::body::{Body, BodyDataStream};
use axum::extract::State;
use axum::response::Response;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::go::named;
use super::lines::{self, Now, Teller};
use super::{event, no_store};
use crate::api::error::ApiError;
use crate::api::query::Params;
use crate::api::{Api, carried};
use crate::image_store::{Brought, ChangeError, Deed, Step, apply_change};
use crate::maker::Maker;
use crate::timestamp::now_ns;

/// Spools the archive, and takes what is in it. Whatever is wrong with it is told in the answer's body, as docker does.
pub(super) async fn load(State(api): State<Arc<Api>>, params: Params, body: Body) -> Result<Response, ApiError> {
    let mut pieces = body.into_data_stream();
    let Some(maker) = api.maker.clone() else {
        carried::drain(&mut pieces).await;
        return Err(no_store());
    };
    let spooled = spool(&maker, &mut pieces).await;
    let quiet = params.flag("quiet");
    Ok(lines::always(move |teller| take(&maker, spooled?, quiet, teller)))
}

/// What a client sends, in a file without a name. A client would rather write to the end than read why not: what cannot be kept is read all the same.
pub(super) async fn spool(maker: &Maker, pieces: &mut BodyDataStream) -> Result<File, ApiError> {
    let failed = |error: std::io::Error| ApiError::internal(format!("cannot keep what comes: {error}"));
    let file = maker.images.spool().map_err(failed)?;
    let mut file = tokio::fs::File::from_std(file);
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|error| ApiError::bad_parameter(error.to_string()))?;
        if let Err(error) = file.write_all(&piece).await {
            drop(file);
            carried::drain(pieces).await;
            return Err(failed(error));
        }
    }
    file.flush().await.map_err(failed)?;
    Ok(file.into_std().await)
}

fn take(maker: &Maker, archive: File, quiet: bool, teller: &Teller) -> Result<(), ApiError> {
    let mut now = Now::default();
    let mut tell = |Step::Layer(taking): Step| {
        if !quiet && (now.and_then() || taking.read == taking.size) {
            let progress = json!({ "current": taking.read, "total": taking.size });
            let id = &taking.layer.hex()[..12];
            teller.tell(json!({ "status": "Loading layer", "progressDetail": progress, "id": id }));
        }
    };
    let brought = maker.images.load(archive, &mut tell).map_err(|error| ApiError::internal(error.to_string()))?;
    for Brought { id, names, renamed } in brought {
        let image = maker.images.find(&id).ok();
        event(maker, "load", &id, &id, image.as_deref());
        for (name, other) in renamed {
            let line =
                format!("The image {name} already exists, renaming the old one with ID {other} to empty string\n");
            teller.tell(json!({ "stream": line }));
        }
        for name in &names {
            teller.tell(json!({ "stream": format!("Loaded image: {name}\n") }));
        }
        if names.is_empty() {
            teller.tell(json!({ "stream": format!("Loaded image ID: {id}\n") }));
        }
    }
    Ok(())
}

/// A tar of a whole file system becomes an image.
pub(super) async fn import(maker: Arc<Maker>, params: Params, body: Body) -> Result<Response, ApiError> {
    let mut pieces = body.into_data_stream();
    let asked = asked(&params);
    let spooled = match &asked {
        Ok(_) => spool(&maker, &mut pieces).await,
        Err(_) => {
            carried::drain(&mut pieces).await;
            Err(ApiError::internal("not asked for"))
        }
    };
    let (name, config) = asked?;
    let comment = params.text("message").unwrap_or("Imported from -").to_owned();
    lines::answer(move |teller| {
        let deed = Deed { created_ns: now_ns(), comment, ..Deed::default() };
        let id = maker.images.commit(None, spooled?, config, &deed, name.as_deref());
        let id = id.map_err(|error| ApiError::internal(format!("{error:#}")))?;
        event(&maker, "import", &id, &id, maker.images.find(&id).ok().as_deref());
        teller.tell(json!({ "status": id }));
        Ok(())
    })
    .await
}

/// The name of the new image, and its configuration.
fn asked(params: &Params) -> Result<(Option<String>, Value), ApiError> {
    let name = params.text("repo").map(|repository| named(repository, params.text("tag"))).transpose()?;
    let mut config = json!({});
    for line in params.all("changes") {
        apply_change(&mut config, line)?;
    }
    Ok((name, config))
}

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> ApiError {
        ApiError::bad_parameter(error.to_string())
    }
}
