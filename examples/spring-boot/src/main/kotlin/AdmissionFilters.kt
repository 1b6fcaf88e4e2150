// Servlet filters that let only users pass whom Usher has admitted. They store the user in the
// request attribute `admittedUser`.

import com.fasterxml.jackson.databind.JsonNode
import com.fasterxml.jackson.databind.ObjectMapper
import jakarta.servlet.FilterChain
import jakarta.servlet.http.HttpFilter
import jakarta.servlet.http.HttpServletRequest
import jakarta.servlet.http.HttpServletResponse
import java.io.IOException
import java.net.URI
import java.net.http.HttpClient
import java.net.http.HttpRequest
import java.net.http.HttpResponse
import java.security.GeneralSecurityException
import java.security.KeyFactory
import java.security.PublicKey
import java.security.Signature
import java.security.spec.X509EncodedKeySpec
import java.time.Duration
import java.time.Instant
import java.util.Base64

private val TIMEOUT = Duration.ofSeconds(2)
// Usher publishes a new key two minutes before it signs with it.
private val KEYS_MAX_AGE = Duration.ofSeconds(60)
// An unknown key is not looked up more often than this.
private val KEYS_MIN_AGE = Duration.ofSeconds(10)
private val RETRY_INTERVAL = Duration.ofSeconds(1)
// What precedes the 32 bytes of an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410).
private val ED25519_PREFIX =
    byteArrayOf(0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00)
private val JSON = ObjectMapper()

/** The answer to a request that may not pass. */
class AdmissionException(val status: Int, detail: String) : Exception(detail) {
    fun write(response: HttpServletResponse) {
        val refused = status == 401
        val code = if (refused) "not_admitted" else "usher_unavailable"
        response.status = status
        if (refused) response.setHeader("WWW-Authenticate", "Bearer")
        else response.setHeader("Retry-After", "3")
        response.contentType = "application/problem+json"
        val problem = mapOf("status" to status, "code" to code, "detail" to message)
        response.outputStream.write(JSON.writeValueAsBytes(problem))
    }
}

abstract class AdmissionFilter(private val url: String) : HttpFilter() {
    private val client = HttpClient.newBuilder()
        .version(HttpClient.Version.HTTP_1_1)
        .connectTimeout(TIMEOUT)
        .build()

    /** Returns the admitted user. */
    protected abstract fun check(request: HttpServletRequest): String

    override fun doFilter(
        request: HttpServletRequest,
        response: HttpServletResponse,
        chain: FilterChain
    ) {
        try {
            request.setAttribute("admittedUser", check(request))
        } catch (error: AdmissionException) {
            return error.write(response)
        }
        chain.doFilter(request, response)
    }

    /** Sends a request to Usher. Returns null if there is no answer. */
    protected fun get(path: String, vararg headers: String): HttpResponse<String>? {
        val request = HttpRequest.newBuilder(URI.create(url + path)).timeout(TIMEOUT)
        if (headers.isNotEmpty()) request.headers(*headers)
        return try {
            client.send(request.build(), HttpResponse.BodyHandlers.ofString())
        } catch (error: IOException) {
            null
        }
    }
}

/** Requires a pass, and verifies it without a request to Usher. */
class PassFilter(url: String, private val queue: String) : AdmissionFilter(url) {
    private class KeySet(val byId: Map<String, PublicKey>, val fetchedAt: Instant) {
        fun isUsable(kid: String): Boolean {
            val limit = if (kid in byId) KEYS_MAX_AGE else KEYS_MIN_AGE
            return Instant.now() < fetchedAt + limit
        }
    }

    @Volatile private var keys = KeySet(emptyMap(), Instant.EPOCH)
    private var retryAt = Instant.EPOCH

    override fun check(request: HttpServletRequest): String {
        val authorization = request.getHeader("Authorization") ?: ""
        if (!authorization.startsWith("Bearer ", ignoreCase = true)) {
            throw AdmissionException(401, "The request has no pass.")
        }
        val parts = authorization.substring("Bearer ".length).split(".")
        val header = parse(parts[0])
        if (parts.size != 3 || header.has("crit")) throw malformed()
        // Never accept an algorithm that the token chooses.
        if (header.path("alg").asText() != "EdDSA") {
            throw AdmissionException(401, "The pass is not signed with EdDSA.")
        }
        val key = findKey(header.path("kid").asText())
            ?: throw AdmissionException(401, "The pass is signed with an unknown key.")
        if (!isSigned("${parts[0]}.${parts[1]}", parts[2], key)) {
            throw AdmissionException(401, "The signature of the pass is invalid.")
        }
        return user(parse(parts[1]))
    }

    private fun user(claims: JsonNode): String {
        val (aud, exp, sub) = listOf("aud", "exp", "sub").map { claims.path(it) }
        return when {
            !aud.isTextual || !exp.isNumber || !sub.isTextual ->
                throw AdmissionException(401, "The claims of the pass are invalid.")
            exp.asLong() <= Instant.now().epochSecond ->
                throw AdmissionException(401, "The pass has expired.")
            aud.asText() != queue ->
                throw AdmissionException(401, "The pass is for a different queue.")
            else -> sub.asText()
        }
    }

    private fun findKey(kid: String): PublicKey? {
        if (!keys.isUsable(kid)) fetchKeys(kid)
        return keys.byId[kid]
    }

    // Requests that arrive at the same time share one fetch.
    @Synchronized
    private fun fetchKeys(kid: String) {
        if (keys.isUsable(kid)) return
        val unavailable = AdmissionException(503, "The keys of Usher are not available.")
        if (Instant.now() < retryAt) throw unavailable
        val response = get("/.well-known/jwks.json")
        try {
            if (response?.statusCode() != 200) throw unavailable
            val jwks = JSON.readTree(response.body()).path("keys")
            val ed25519 = jwks.filter { it.path("crv").asText() == "Ed25519" }
            val byId = ed25519.associate { it.path("kid").asText() to publicKey(it) }
            keys = KeySet(byId, Instant.now())
        } catch (error: Exception) {
            retryAt = Instant.now() + RETRY_INTERVAL
            throw unavailable
        }
    }

    private fun publicKey(jwk: JsonNode): PublicKey {
        val bytes = ED25519_PREFIX + decode(jwk.path("x").asText())
        return KeyFactory.getInstance("Ed25519").generatePublic(X509EncodedKeySpec(bytes))
    }

    private fun isSigned(text: String, signature: String, key: PublicKey): Boolean = try {
        val verifier = Signature.getInstance("Ed25519")
        verifier.initVerify(key)
        verifier.update(text.toByteArray())
        verifier.verify(decode(signature))
    } catch (error: GeneralSecurityException) {
        false
    }

    private fun parse(part: String): JsonNode = try {
        JSON.readTree(decode(part))
    } catch (error: IOException) {
        throw malformed()
    }

    private fun decode(text: String): ByteArray = try {
        Base64.getUrlDecoder().decode(text)
    } catch (error: IllegalArgumentException) {
        throw malformed()
    }

    private fun malformed() = AdmissionException(401, "The pass is malformed.")
}

/**
 * Requires a queue token, and asks Usher whether its user is active now. The token is in the header
 * `Queue-Token` or in the cookie of the waiting page.
 */
class QueueTokenFilter(url: String, private val queue: String) : AdmissionFilter(url) {
    override fun check(request: HttpServletRequest): String {
        val cookie = request.cookies?.find { it.name == "usher-$queue" }?.value
        val token = request.getHeader("Queue-Token") ?: cookie
        if (token.isNullOrEmpty()) throw AdmissionException(401, "The request has no queue token.")
        val response = get("/v1/queues/$queue/check", "Queue-Token", token)
        val user = response?.headers()?.firstValue("Usher-User")?.orElse(null)
        val status = response?.statusCode()
        if (status == 204 && user != null) return user
        if (status == 401) throw AdmissionException(401, "The user is not admitted.")
        throw AdmissionException(503, "Usher did not answer the check.")
    }
}
