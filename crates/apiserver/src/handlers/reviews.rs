//! Questions posted as objects: who am I, whose token is this, may he; and the tokens of ServiceAccounts.

use axum::body::Body;
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::decode;
use crate::authn::{Bound, UserInfo};
use crate::authz::{self, Attributes};
use crate::error::{ApiError, Result};
use crate::field::FieldError;
use crate::http::{self as wire, Ctx};
use crate::object;
use crate::resource::Resource;

/// Shortest and longest life of a token, in seconds; upstream's.
const TOKEN_SECONDS: std::ops::RangeInclusive<i64> = 600..=1 << 32;

/// Answers a review.
///
/// # Errors
/// A body without the part that the question needs.
pub async fn create(ctx: &Ctx, resource: &Resource, body: Bytes) -> Result<Response<Body>> {
    if resource.kind == "Binding" {
        let name = object::name(&wire::parse_object(&ctx.headers, &body)?).to_owned();
        let pods = ctx.server.registry().get("", "v1", "pods").ok_or_else(ApiError::no_such_path)?;
        return super::pods::bind(ctx, &pods, &name, body).await;
    }
    let mut review = decode::object(ctx, resource, &body)?;
    let status = match resource.kind.as_str() {
        "SelfSubjectReview" => json!({ "userInfo": ctx.user.to_value() }),
        "TokenReview" => token_review(ctx, &review),
        "SelfSubjectAccessReview" => access(ctx, &ctx.user, &review)?,
        "SubjectAccessReview" | "LocalSubjectAccessReview" => access(ctx, &subject(&review), &review)?,
        "SelfSubjectRulesReview" => rules(ctx, &review),
        other => return Err(ApiError::not_implemented(format!("{other} is not answered here"))),
    };
    object::meta_mut(&mut review).insert("creationTimestamp".into(), Value::Null);
    review["status"] = status;
    Ok(wire::encode(StatusCode::CREATED, &review, ctx.accept))
}

fn strings(value: &Value, pointer: &str) -> Vec<String> {
    object::items(value, pointer).iter().filter_map(Value::as_str).map(Into::into).collect()
}

fn token_review(ctx: &Ctx, review: &Value) -> Value {
    let audiences = strings(review, "/spec/audiences");
    let token = object::text(review, "/spec/token");
    match ctx.server.tokens.authenticate(&ctx.server, token, &audiences) {
        Some(user) => {
            let audiences =
                if audiences.is_empty() { vec![crate::authn::ISSUER.to_owned()] } else { audiences };
            json!({ "authenticated": true, "user": user.to_value(), "audiences": audiences })
        }
        None => json!({ "user": {}, "error": "invalid bearer token" }),
    }
}

fn subject(review: &Value) -> UserInfo {
    UserInfo {
        name: object::text(review, "/spec/user").to_owned(),
        uid: object::text(review, "/spec/uid").to_owned(),
        groups: strings(review, "/spec/groups"),
        ..UserInfo::default()
    }
}

fn access(ctx: &Ctx, user: &UserInfo, review: &Value) -> Result<Value> {
    let text = |pointer: &str| object::text(review, pointer).to_owned();
    let attributes = if review.pointer("/spec/resourceAttributes").is_some_and(Value::is_object) {
        Attributes {
            verb: text("/spec/resourceAttributes/verb"),
            group: text("/spec/resourceAttributes/group"),
            resource: text("/spec/resourceAttributes/resource"),
            subresource: text("/spec/resourceAttributes/subresource"),
            name: text("/spec/resourceAttributes/name"),
            namespace: text("/spec/resourceAttributes/namespace"),
            path: None,
        }
    } else if review.pointer("/spec/nonResourceAttributes").is_some_and(Value::is_object) {
        Attributes {
            verb: text("/spec/nonResourceAttributes/verb"),
            path: Some(text("/spec/nonResourceAttributes/path")),
            ..Attributes::default()
        }
    } else {
        let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        let error = FieldError::invalid("spec.resourceAttributes", Value::Null, detail);
        return Err(ApiError::invalid("authorization.k8s.io", "SubjectAccessReview", "", vec![error]));
    };
    Ok(json!({ "allowed": authz::allows(&ctx.server, user, &attributes) }))
}

fn rules(ctx: &Ctx, review: &Value) -> Value {
    let namespace = object::text(review, "/spec/namespace");
    let mut all = ctx.server.policy.rules(&ctx.server).rules_of(&ctx.user, namespace);
    if ctx.user.is_master() {
        let everything = vec!["*".to_owned()];
        all.push(authz::rules::Rule {
            verbs: everything.clone(),
            groups: everything.clone(),
            resources: everything.clone(),
            ..Default::default()
        });
        all.push(authz::rules::Rule { verbs: everything.clone(), paths: everything, ..Default::default() });
    }
    let (paths, resources): (Vec<_>, Vec<_>) = all.iter().partition(|rule| !rule.paths.is_empty());
    let values =
        |rules: Vec<&authz::rules::Rule>| rules.iter().map(|rule| rule.to_value()).collect::<Vec<_>>();
    json!({ "resourceRules": values(resources), "nonResourceRules": values(paths), "incomplete": false })
}

/// Issues a token for a ServiceAccount.
///
/// # Errors
/// `NotFound` for account or bound object; `Invalid` for a life out of bounds.
pub async fn token(ctx: &Ctx, resource: &Resource, body: Bytes) -> Result<Response<Body>> {
    let (namespace, name) = (ctx.info.namespace.as_str(), ctx.info.name.as_str());
    let mut request = wire::parse_object(&ctx.headers, &body)?;
    let account = ctx
        .server
        .read(resource, namespace, name)
        .ok_or_else(|| ApiError::not_found("", "serviceaccounts", name))?;
    let seconds = object::int(&request, "/spec/expirationSeconds").unwrap_or(3600);
    if !TOKEN_SECONDS.contains(&seconds) {
        let detail = if seconds < *TOKEN_SECONDS.start() {
            "may not specify a duration less than 10 minutes"
        } else {
            "may not specify a duration larger than 2^32 seconds"
        };
        let error = FieldError::invalid("spec.expirationSeconds", seconds, detail);
        return Err(ApiError::invalid("authentication.k8s.io", "TokenRequest", "", vec![error]));
    }
    let bound = bound(ctx, namespace, &request)?;
    let audiences = strings(&request, "/spec/audiences");
    let (token, expires) = ctx.server.tokens.issue(&account, bound.as_ref(), &audiences, seconds)?;
    object::set_type(&mut request, "authentication.k8s.io/v1", "TokenRequest");
    let meta = object::meta_mut(&mut request);
    meta.insert("name".into(), name.into());
    meta.insert("namespace".into(), namespace.into());
    meta.insert("creationTimestamp".into(), object::now().into());
    let spec = object::section(&mut request, "spec");
    spec.insert("expirationSeconds".into(), seconds.into());
    if audiences.is_empty() {
        spec.insert("audiences".into(), json!([crate::authn::ISSUER]));
    }
    let at = jiff::Timestamp::from_second(expires).map_err(ApiError::internal)?;
    request["status"] = json!({ "token": token, "expirationTimestamp": object::time(at) });
    Ok(wire::encode(StatusCode::CREATED, &request, ctx.accept))
}

fn bound(ctx: &Ctx, namespace: &str, request: &Value) -> Result<Option<Bound>> {
    let kind = object::text(request, "/spec/boundObjectRef/kind");
    let name = object::text(request, "/spec/boundObjectRef/name");
    let (kind, plural) = match kind {
        "" => return Ok(None),
        "Pod" => ("pod", "pods"),
        "Secret" => ("secret", "secrets"),
        other => {
            let why = format!("cannot bind token for serviceaccount to object of type {other}");
            return Err(ApiError::bad_request(why));
        }
    };
    let found = ctx
        .server
        .read_key(&format!("/core/{plural}/{namespace}/{name}"))
        .ok_or_else(|| ApiError::not_found("", plural, name))?;
    let uid = object::uid(&found);
    let wanted = object::text(request, "/spec/boundObjectRef/uid");
    if !wanted.is_empty() && wanted != uid {
        let why = format!(
            "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been \
             deleted and then recreated"
        );
        return Err(ApiError::conflict("", plural, name, &why));
    }
    Ok(Some(Bound { kind, name: name.to_owned(), uid: uid.to_owned() }))
}
