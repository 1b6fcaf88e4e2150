// The filters in an embedded Tomcat, without Spring. ../../../../test runs it.

import jakarta.servlet.Filter
import jakarta.servlet.http.HttpServlet
import jakarta.servlet.http.HttpServletRequest
import jakarta.servlet.http.HttpServletResponse
import java.nio.file.Files
import org.apache.catalina.Context
import org.apache.catalina.startup.Tomcat
import org.apache.tomcat.util.descriptor.web.FilterDef
import org.apache.tomcat.util.descriptor.web.FilterMap

class SeatServlet : HttpServlet() {
    override fun doGet(request: HttpServletRequest, response: HttpServletResponse) {
        response.contentType = "application/json"
        response.writer.write("""{"user": "${request.getAttribute("admittedUser")}"}""")
    }
}

fun Context.addFilter(name: String, filter: Filter, paths: String) {
    addFilterDef(FilterDef().apply { filterName = name; setFilter(filter) })
    addFilterMap(FilterMap().apply { filterName = name; addURLPattern(paths) })
}

fun main() {
    val url = System.getenv("USHER_URL")
    val queue = System.getenv("USHER_QUEUE")
    val directory = Files.createTempDirectory("usher-filter")
    val tomcat = Tomcat()
    tomcat.setBaseDir(directory.toString())
    tomcat.setPort(0)
    tomcat.connector.setProperty("address", "127.0.0.1")
    val context = tomcat.addContext("", null)
    context.addFilter("pass", PassFilter(url, queue), "/by-pass/*")
    context.addFilter("token", QueueTokenFilter(url, queue), "/by-token/*")
    Tomcat.addServlet(context, "seats", SeatServlet())
    context.addServletMappingDecoded("/", "seats")
    tomcat.start()
    println("http://127.0.0.1:${tomcat.connector.localPort} ")
    tomcat.server.await()
}
