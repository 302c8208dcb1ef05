//! Amazon Bedrock. The class is in `x-amzn-errortype`, or in `__type` of the body; it counts,
//! not the status.

use crate::api::Api;
use crate::signals::Class::{
    Denied, Elsewhere, NotFound, NotSupported, Overloaded, RateLimit, RequestFault, Transient,
};
use crate::signals::row::{Row, code, phrase, status};

pub(super) static ROWS: &[Row] = &[
    // Limits. S
    code("ThrottlingException", RateLimit),
    code("throttlingException", RateLimit),
    code("TooManyRequestsException", RateLimit),
    code("ServiceQuotaExceededException", RateLimit),
    // The model. Its refusals are for the account and the model of the path. S
    code("ModelNotReadyException", Transient),
    code("ModelTimeoutException", Transient),
    code("ModelErrorException", Transient),
    code("ModelStreamErrorException", Transient),
    code("modelStreamErrorException", Transient),
    code("AccessDeniedException", Denied).says("authentication failed"),
    code("AccessDeniedException", NotSupported).implied(),
    code("ResourceNotFoundException", NotSupported).says("*use case details").implied(),
    code("ResourceNotFoundException", NotFound).implied(),
    code("ValidationException", Denied).says("operation not allowed"),
    code("ValidationException", Elsewhere).says("*model identifier is invalid"),
    code("ValidationException", RequestFault),
    code("validationException", RequestFault),
    code("ServiceUnavailableException", Overloaded),
    code("serviceUnavailableException", Overloaded),
    code("InternalServerException", Transient),
    code("internalServerException", Transient),
    // Keys. D
    code("UnrecognizedClientException", Denied).proof(),
    code("ExpiredTokenException", Denied).proof(),
    code("InvalidClientTokenId", Denied).proof(),
    code("InvalidSignatureException", Denied),
    code("MissingAuthenticationTokenException", Denied),
    phrase("api_key_not_valid", Denied)
        .says("authentication failed: please make sure your api key"),
    // The model's own error. S
    status("failed_dependency", Transient).on(&[424]).of(Api::Bedrock),
];
