// A backend with one route for each check. It reads USHER_URL and USHER_QUEUE.

import jakarta.servlet.Filter
import org.springframework.beans.factory.annotation.Value
import org.springframework.boot.autoconfigure.SpringBootApplication
import org.springframework.boot.runApplication
import org.springframework.boot.web.servlet.FilterRegistrationBean
import org.springframework.context.annotation.Bean
import org.springframework.web.bind.annotation.GetMapping
import org.springframework.web.bind.annotation.RequestAttribute
import org.springframework.web.bind.annotation.RestController

@SpringBootApplication
class Application(
    @Value("\${USHER_URL:http://127.0.0.1:8080}") private val url: String,
    @Value("\${USHER_QUEUE:demo}") private val queue: String
) {
    @Bean
    fun passFilter() = register(PassFilter(url, queue), "/by-pass/*")

    @Bean
    fun queueTokenFilter() = register(QueueTokenFilter(url, queue), "/by-token/*")

    private fun <T : Filter> register(filter: T, paths: String) =
        FilterRegistrationBean(filter).apply { addUrlPatterns(paths) }
}

@RestController
class SeatController {
    @GetMapping("/by-pass/seats", "/by-token/seats")
    fun seats(@RequestAttribute admittedUser: String) = mapOf("user" to admittedUser)
}

fun main(arguments: Array<String>) {
    runApplication<Application>(*arguments)
}
